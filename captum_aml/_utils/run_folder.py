"""Folders of runs: held by one process at a time, and compared by what the run is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from filelock import Timeout

from captum_aml._utils.files import locked
from captum_aml._utils.rows import shown
from captum_aml.exceptions import CaptumAMLError, InvalidInputError

if TYPE_CHECKING:
    from typing_extensions import Self

#: The file that is locked, while a process holds the folder; it holds nothing.
LOCK = ".lock"
#: The most differences that an error names.
_MOST_NAMED = 5


class RunFolder:
    """The folder of one run, held by this process from the start until it is closed.

    It is held by :func:`~captum_aml._utils.files.locked`.

    Args:
        path: The folder, which is made if needed.

    Attributes:
        path: The folder.

    Raises:
        InvalidInputError: The path is a file, or another process holds the folder.
        OSError: The folder cannot be written.
    """

    #: The argument that names the folder, and the class of errors about it.
    argument: ClassVar[str] = "out"
    error: ClassVar[type[CaptumAMLError]] = InvalidInputError

    def __init__(self, path: Path) -> None:
        self.check_path(path)
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = ExitStack()
        try:
            self._lock.enter_context(locked(path / LOCK, wait=False))
        except Timeout:
            raise self.error(
                f"{self.argument}: another process writes to {os.fspath(path)!r}; wait for it, or "
                "choose another folder"
            ) from None

    @classmethod
    def check_path(cls, path: Path) -> None:
        """Refuses a file in the folder's place; nothing is made.

        Raises:
            InvalidInputError: There is one.
        """
        if path.exists() and not path.is_dir():
            raise cls.error(f"{cls.argument}: expected a folder, got the file {os.fspath(path)!r}")

    def close(self) -> None:
        """Lets other processes write to the folder."""
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_same(
    there: Mapping[str, Any],
    ours: Mapping[str, Any],
    what: str,
    *,
    remedy: str = "Choose another folder, or start anew with --overwrite",
    error: type[CaptumAMLError] = InvalidInputError,
) -> None:
    """Refuses the folder, or the file, of another run.

    Args:
        there: What the run there is, as JSON values.
        ours: What the run here is.
        what: How the message begins.
        remedy: How it ends.
        error: The class of the error.

    Raises:
        InvalidInputError: The fields differ; the message names them with both values.
    """
    theirs, own = _flat(there), _flat(ours)
    differing = [
        f"{name} is {shown(theirs[name]) if name in theirs else 'not'} there and "
        f"{shown(own[name]) if name in own else 'not'} here"
        for name in dict.fromkeys([*theirs, *own])
        if name not in theirs or name not in own or theirs[name] != own[name]
    ]
    if differing:
        more = len(differing) - _MOST_NAMED
        named = [*differing[:_MOST_NAMED], *([f"{more} more differ"] if more > 0 else [])]
        raise error(f"{what}: {'; '.join(named)}. {remedy}")


def _flat(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Fields of fields by their names with a dot between."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
