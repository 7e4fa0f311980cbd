"""Places of values in what a template renders: found by rendering another string in their place."""

from __future__ import annotations

import itertools
from collections.abc import Sequence


def gaps(text: str, pieces: Sequence[str]) -> list[tuple[int, int]] | None:
    """The places of something between pieces of a text, the same at each; None if nowhere."""
    n_gaps = len(pieces) - 1
    left_over = len(text) - sum(map(len, pieces))
    if n_gaps == 0 or left_over < 0 or left_over % n_gaps:
        return None
    length, start, spans = left_over // n_gaps, 0, []
    for number, piece in enumerate(pieces):
        if not text.startswith(piece, start):
            return None
        start += len(piece)
        if number < n_gaps:
            spans.append((start, start + length))
            start += length
    return spans


def absent_number(text: str) -> str:
    """A number that does not occur in a text, and is not changed by what templates do to strings.

    Its first digit occurs once, so that it cannot be mistaken for what stands before it.
    """
    return next(s for n in itertools.count() if (s := f"9{n:o}817263540") not in text)
