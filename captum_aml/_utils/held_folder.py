"""A folder that one process at a time writes to."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from captum_aml.exceptions import InvalidInputError

if TYPE_CHECKING:
    from typing_extensions import Self

if sys.platform != "win32":
    import fcntl

#: The file that is locked; it says who has the lock.
LOCK = ".lock"


class HeldFolder:
    """A folder that is held by this process from the start until it is closed.

    Args:
        path: The folder, which exists.

    Raises:
        InvalidInputError: Another process holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = _lock(path)

    def close(self) -> None:
        """Lets other processes write to the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _lock(folder: Path) -> int | None:
    """Takes the folder's lock, which the system takes back when the process ends.

    Returns:
        What to close to give it back; None on systems and disks without locks, where two runs in
        one folder go unnoticed.

    Raises:
        InvalidInputError: Another process has it.
    """
    if sys.platform == "win32":
        return None
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(lock, 20).decode("ascii", "replace").strip()
        os.close(lock)
        raise InvalidInputError(
            f"out: expected a folder that nobody writes to, got {os.fspath(folder)!r}, which "
            f"process {owner or 'unknown'} is writing to; wait for it, or choose another folder"
        ) from None
    except OSError:
        os.close(lock)
        return None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode("ascii"), 0)
    return lock


__all__ = ["LOCK", "HeldFolder"]
