"""What a command writes, apart from what it reads."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from captum_aml.exceptions import InvalidInputError


def check_apart(
    option: str,
    written: Iterable[Path],
    read: Iterable[str | os.PathLike[str] | IO[str] | None],
) -> None:
    """Refuses to write to a file that is read.

    Args:
        option: The option that says what is written, for the error.
        written: The files that a command writes.
        read: Files and streams that it reads, None for those that are not given, and names that
            may be of files.

    Raises:
        InvalidInputError: Two of them are the same file.
    """
    sources = [source for source in read if source is not None]
    for file in written:
        if any(_is_same(file, source) for source in sources):
            raise InvalidInputError(
                f"{option}: expected another file than the one that is read, got "
                f"{os.fspath(file)!r}"
            )


def _is_same(file: Path, source: str | os.PathLike[str] | IO[str]) -> bool:
    try:
        there = source if isinstance(source, str | os.PathLike) else source.fileno()
        return os.path.samestat(os.stat(there), file.stat())
    except (OSError, ValueError):  # one does not exist, or is no file
        return False
