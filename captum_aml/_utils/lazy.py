"""Public names of a package that are loaded when they are first used (PEP 562)."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path


def lazy_names(package: str) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """A package's ``__getattr__`` and ``__dir__``, which import a name's module on its first use.

    The names are those that the package's ``if TYPE_CHECKING:`` imports, so that type checkers and
    users get the same. A module of the package must not bear a name of them: Python sets it as the
    package's attribute when it is imported.

    Args:
        package: The package's ``__name__``.
    """
    module = sys.modules[package]
    assert module.__file__ is not None
    homes = {
        alias.name: statement.module
        for block in ast.parse(Path(module.__file__).read_text(encoding="utf-8")).body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for statement in block.body
        if isinstance(statement, ast.ImportFrom) and statement.module is not None
        for alias in statement.names
    }

    def getattr_(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(homes[name]), name)
        setattr(module, name, value)
        return value

    def dir_() -> list[str]:
        return sorted({*vars(module), *homes})

    return getattr_, dir_


__all__ = ["lazy_names"]
