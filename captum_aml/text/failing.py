"""Texts of a stream that fail: which of a batch it is, and whether it is passed over."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Literal, TypeAlias, TypeVar, get_args

from captum_aml.exceptions import (
    CheckpointError,
    InvalidInputError,
    LayerNotReachedError,
    NoGradientError,
    NotFittedError,
)

#: What to do with a text that cannot be explained: end there, or go on without it.
OnError: TypeAlias = Literal["raise", "skip"]

_T = TypeVar("_T")

#: They say something of the model or the installation, whatever the text.
_OF_NO_TEXT = (ImportError, CheckpointError, LayerNotReachedError, NoGradientError, NotFittedError)
_SHOWN = 10
_PLACE = re.compile(r"at position \d+")


def check_errors(errors: object) -> None:
    """Refuses what says nothing of failing texts.

    Raises:
        InvalidInputError: It is neither "raise" nor "skip".
    """
    if errors not in get_args(OnError):
        raise InvalidInputError(f"errors: expected 'raise' or 'skip', got {errors!r}")


class FailingTexts:
    """The texts of a call that failed, by their rows.

    Args:
        errors: What to do with them.
    """

    def __init__(self, errors: OnError) -> None:
        self._skips = errors == "skip"
        self._failed: dict[int, Exception] = {}
        self._skipped: list[int] = []
        self._reason = ""

    def attempt(
        self,
        numbers: Sequence[int],
        rows: Sequence[int],
        run: Callable[[Sequence[int]], Sequence[_T]],
    ) -> dict[int, _T]:
        """What ``run`` gives for each of the numbers but those of texts that fail.

        Where it fails for all together it is run for each half, down to the text that it is. With
        "raise" texts behind the first that fails do not matter any more.

        Args:
            numbers: What ``run`` takes, in an order of its own.
            rows: The row of the text of each number.
            run: Gives a result for each number.

        Raises:
            Exception: What ``run`` raised, where it has nothing to do with a text; or, with
                "raise", where no text fails by itself.
        """
        wanted = [number for number in numbers if self._goes_on(rows[number])]
        if not wanted:
            return {}
        try:
            return dict(zip(wanted, run(wanted), strict=True))
        except _OF_NO_TEXT:
            raise
        except Exception as caught:
            # Frames hold the tensors of a pass for which the memory may have been too small.
            error = caught.with_traceback(None) if self._skips else caught
        if len(wanted) == 1:
            self._failed[rows[wanted[0]]] = error
            return {}
        half = len(wanted) // 2
        results = self.attempt(wanted[:half], rows, run)
        results |= self.attempt(wanted[half:], rows, run)
        if not self._skips and all(self._goes_on(rows[number]) for number in wanted):
            raise error
        return results

    def passes_over(self, row: int) -> bool:
        """Whether the text of a row has failed and is passed over.

        Raises:
            Exception: The text has failed, and errors are raised.
        """
        error = self._failed.pop(row, None)
        if error is None:
            return False
        if not self._skips:
            raise _at(error, row)
        self._skipped.append(row)
        self._reason = self._reason or f"{error}" or type(error).__name__
        return True

    def warn(self, n_texts: int) -> None:
        """Warns of the texts that were passed over, if any, of all of a call."""
        count = len(self._skipped)
        if count:
            which = ", ".join(map(str, self._skipped[:_SHOWN])) + ", ..." * (count > _SHOWN)
            warnings.warn(
                f"{count} of {n_texts} texts could not be explained and were skipped, at positions "
                f"{which}; the first because of: {self._reason}",
                stacklevel=3,
            )

    def _goes_on(self, row: int) -> bool:
        if self._skips:
            return row not in self._failed
        return all(row < failed for failed in self._failed)


def windows(items: Iterable[_T], size: int) -> Iterator[tuple[list[_T], Exception | None]]:
    """Consecutive parts of a stream, read as they are taken; nothing before an error is lost.

    Args:
        items: The stream.
        size: Items in a part; the last one may have fewer.

    Yields:
        A part, and the error with which the stream ended behind it.
    """
    source, error = iter(items), None
    while error is None:
        part: list[_T] = []
        try:
            for item in islice(source, size):
                part.append(item)
        except Exception as caught:
            error = caught
        if part or error:
            yield part, error
        if len(part) < size:
            return


def _at(error: Exception, row: int) -> Exception:
    """The error, with the row in its message in place of the number in a batch, or at the end."""
    place, message = f"at position {row}", str(error)
    if error.args == (message,):
        there, n_found = _PLACE.subn(place, message, count=1)
        error.args = (there if n_found else f"{message}, {place}",)
    return error
