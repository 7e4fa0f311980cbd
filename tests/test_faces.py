"""The public names of packages: each is there, and lists them where it says so."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import captum_aml

ROOT = Path(captum_aml.__file__).parent
FOUND = list(pkgutil.walk_packages([str(ROOT)], "captum_aml."))
MODULES = ["captum_aml", *(found.name for found in FOUND)]
PACKAGES = ["captum_aml", *(found.name for found in FOUND if found.ispkg)]


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_is_there(name: str) -> None:
    if name.endswith(".__main__"):
        pytest.skip("it runs the command line")
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", ()):
        getattr(module, public)


@pytest.mark.parametrize("name", PACKAGES)
def test_names_that_are_loaded_on_their_first_use(name: str) -> None:
    """They are what type checkers see, and public."""
    module = importlib.import_module(name)
    assert module.__file__ is not None
    seen = {
        alias.name: statement.module
        for block in ast.parse(Path(module.__file__).read_text(encoding="utf-8")).body
        if isinstance(block, ast.If)
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    for public, home in seen.items():
        assert home is not None
        assert getattr(module, public) is getattr(importlib.import_module(home), public)
    if seen:
        assert {*seen, "__version__"} >= set(module.__all__) >= set(seen)
        assert set(module.__all__) <= set(dir(module))


def test_another_name_is_an_error() -> None:
    text = importlib.import_module("captum_aml.text")
    with pytest.raises(AttributeError, match=r"'captum_aml.text' has no attribute 'nothing'"):
        _ = text.nothing
    with pytest.raises(ImportError):
        exec("from captum_aml.text import nothing")
