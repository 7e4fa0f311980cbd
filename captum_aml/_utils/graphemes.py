"""Grapheme clusters, which are read as one character, of Unicode's Standard Annex 29."""

from __future__ import annotations

from collections.abc import Iterator

import regex

Span = tuple[int, int]

# Pairs of regional indicators are flags. To distinguish their halves, a matcher
# counts back to the first of them, which takes quadratic time where thousands stand in a row.
_FLAGS = regex.compile("[\U0001f1e6-\U0001f1ff]{129,}")
_FLAG_CHARACTERS = 128
_CLUSTER = regex.compile(r"\X")


def match_spans(pattern: regex.Pattern[str], text: str) -> Iterator[Span]:
    """The spans of a pattern's matches, in time linear in the text's length.

    Args:
        pattern: Every match of it ends at the end of a grapheme cluster, and none spans several
            flags.
        text: Any text.
    """
    start = 0
    for end in [*_cuts(text), len(text)]:
        piece = text[start:end] if (start, end) != (0, len(text)) else text
        for match in pattern.finditer(piece):
            yield start + match.start(), start + match.end()
        start = end


def grapheme_spans(text: str) -> Iterator[Span]:
    """The spans of a text's grapheme clusters, one after the other."""
    return match_spans(_CLUSTER, text)


def _cuts(text: str) -> Iterator[int]:
    """Borders between flags, so that no long row of them stays."""
    for run in _FLAGS.finditer(text):
        yield from range(run.start() + _FLAG_CHARACTERS, run.end(), _FLAG_CHARACTERS)
