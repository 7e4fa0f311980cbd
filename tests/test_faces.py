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


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_is_there(name: str) -> None:
    if name.endswith(".__main__"):
        pytest.skip("it runs the command line")
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", ()):
        getattr(module, public)


@pytest.mark.parametrize("stub", sorted(ROOT.rglob("*.pyi")), ids=lambda stub: stub.parent.name)
def test_names_that_are_loaded_on_their_first_use(stub: Path) -> None:
    """They are what type checkers see in the stub, and public."""
    name = ".".join(stub.parent.relative_to(ROOT.parent).parts)
    module = importlib.import_module(name)
    body = ast.parse(stub.read_text(encoding="utf-8")).body
    seen = {
        alias.name: f"{name}.{statement.module}"
        for statement in body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    for public, home in seen.items():
        assert getattr(module, public) is getattr(importlib.import_module(home), public)
    (listed,) = (ast.literal_eval(s.value) for s in body if isinstance(s, ast.Assign))
    assert sorted(listed) == sorted(module.__all__)
    assert {*seen, "__version__"} >= set(module.__all__) >= set(seen)
    assert set(seen) <= set(dir(module))


def test_another_name_is_an_error() -> None:
    text = importlib.import_module("captum_aml.text")
    with pytest.raises(AttributeError, match=r"No captum_aml.text attribute nothing"):
        _ = text.nothing
    with pytest.raises(ImportError):
        exec("from captum_aml.text import nothing")
