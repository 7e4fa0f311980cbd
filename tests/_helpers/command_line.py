"""The command line's outcome in tests: exit code and what was printed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias


class Result:
    """What a run left behind."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err


Run: TypeAlias = Callable[..., Result]
