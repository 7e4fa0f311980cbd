"""Options of dataclasses, each with its documentation beside it: ``Annotated[int, Doc("...")]``.

Class docstrings, the command line's flags and their help texts are made from them. Importing this
loads no torch.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any, TypeVar, get_type_hints

from typing_extensions import Doc

C = TypeVar("C")


def comma_separated(given: str) -> list[str]:
    """The names in an option that takes several."""
    return [name.strip() for name in given.split(",") if name.strip()]


def option_docs(options: type) -> dict[str, str]:
    """The documentation of a dataclass's fields by name, as far as they have any."""
    docs: dict[str, str] = {}
    for name, hint in get_type_hints(options, include_extras=True).items():
        # Only what is annotated has metadata.
        parts: tuple[Any, ...] = getattr(hint, "__metadata__", ())
        for part in parts:
            if isinstance(part, Doc):
                docs[name] = part.documentation
    return docs


def documented(options: type[C]) -> type[C]:
    """Puts the fields' documentation into a dataclass's docstring, before its ``Raises``."""
    text, section, rest = (options.__doc__ or "").partition("\n    Raises:")
    attributes = "\n".join(["    Attributes:", *_entries(options)])
    options.__doc__ = f"{text.rstrip()}\n\n{attributes}\n{section}{rest}"
    return options


def takes_options(options: type) -> Callable[[type[C]], type[C]]:
    """A decorator that documents a class's ``**options`` by a dataclass's fields, one by one."""

    def decorate(cls: type[C]) -> type[C]:
        lines = (cls.__doc__ or "").split("\n")
        place = next(i for i, line in enumerate(lines) if line.startswith("        **options:"))
        end = lines.index("", place)
        cls.__doc__ = "\n".join([*lines[:place], *_entries(options), *lines[end:]])
        return cls

    return decorate


def _entries(options: type) -> list[str]:
    """The fields' entries in a docstring."""
    return [
        textwrap.fill(f"{name}: {doc}", 100, initial_indent=" " * 8, subsequent_indent=" " * 12)
        for name, doc in option_docs(options).items()
    ]
