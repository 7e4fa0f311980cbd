"""Segments of a text: coloured and plain stretches, in characters that are safe to print."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from typing import Literal
from unicodedata import east_asian_width

from captum_aml._utils.graphemes import Span, grapheme_spans
from captum_aml.visualization.cards import ScoredText, TextCard, score_text

#: Scores below this share of the strongest colour are not told from the ground everywhere.
FAINT = 0.1

#: The most columns of a label in headlines, legends and figures.
LONGEST_LABEL = 40


@dataclass(frozen=True)
class Segment:
    """A stretch of text with one colour.

    Attributes:
        text: The characters, printable.
        score: The score, None between tokens.
        strength: How strong the colour is, from -1 to 1.
        kind: "token", "gap" between tokens, or "unseen" beyond what the model takes.
    """

    text: str
    score: float | None = None
    strength: float = 0.0
    kind: Literal["token", "gap", "unseen"] = "gap"

    @property
    def against(self) -> bool:
        """Whether it speaks against the class, which no display says by colour alone."""
        return self.strength <= -FAINT

    @property
    def title(self) -> str:
        """Text shown on hover."""
        if self.kind == "unseen":
            return "beyond the model's maximum length"
        if self.score is None:
            return ""
        return score_text(self.score, abs(self.score / self.strength) if self.strength else 1.0)


def card_segments(card: TextCard, row: ScoredText) -> list[list[Segment]]:
    """The stretches of a card's text: one list, or one for each text of a pair."""
    scale = _scale(row)
    if not card.parts:
        return [segments(card.text, row, seen=card.seen, scale=scale)]
    starts = [start for start, _ in card.parts]
    tokens: list[list[tuple[Span, float]]] = [[] for _ in card.parts]
    for span, score in zip(row.offsets, row.scores, strict=True):
        part = max(0, bisect_right(starts, span[0]) - 1)
        tokens[part].append(((span[0] - starts[part], span[1] - starts[part]), score))
    result = []
    for (start, end), inside in zip(card.parts, tokens, strict=True):
        part_row = replace(row, offsets=[o for o, _ in inside], scores=[s for _, s in inside])
        seen = None if card.seen is None else max((last for (_, last), _ in inside), default=0)
        result.append(segments(card.text[start:end], part_row, seen=seen, scale=scale))
    return result


def _scale(row: ScoredText) -> float:
    largest = max((abs(s) for s in row.scores), default=0.0)
    return largest if (row.signed or row.relative) and largest > 0 else 1.0


def segments(
    text: str, row: ScoredText, *, seen: int | None = None, scale: float | None = None
) -> list[Segment]:
    """Cuts a text into coloured and plain stretches; joined they are the printable text.

    Tokens that share a character (the bytes of an emoji, say), or whose border falls inside what
    is read as one character (a letter and its accent), become one stretch with the score that is
    largest in absolute value.

    Args:
        text: The text.
        row: Its scores.
        seen: Up to which character the model saw it; None for all of it. Default: None.
        scale: The score of the strongest colour; None for that of the row. Default: None.
    """
    scale = _scale(row) if scale is None else scale
    whole = _Clusters(text)
    stretches: list[tuple[int, int, float]] = []
    spans = sorted(
        (*whole.around(start, end), float(score))
        for (start, end), score in zip(row.offsets, row.scores, strict=True)
        if end > start
    )
    for start, end, score in spans:
        previous = stretches[-1] if stretches else None
        if previous and start < previous[1]:
            strongest = max(previous[2], score, key=abs)
            stretches[-1] = (previous[0], max(end, previous[1]), strongest)
        else:
            stretches.append((start, end, score))

    clean = printable(text)
    result: list[Segment] = []
    position = 0
    for start, end, score in stretches:
        if start > position:
            # A text that is cut on the left begins with what was not seen.
            cut = seen is not None and not position and not text[:start].isspace()
            result.append(Segment(clean[position:start], kind="unseen" if cut else "gap"))
        strength = max(-1.0, min(1.0, score / scale))
        result.append(Segment(clean[start:end], score, strength, "token"))
        position = end
    rest = len(text) if seen is None else max(whole.around(0, seen)[1], position)
    if rest > position:
        result.append(Segment(clean[position:rest]))
    if rest < len(text):
        result.append(Segment(clean[rest:], kind="unseen"))
    return result


class _Clusters:
    """Knows which characters of a text are read as one."""

    def __init__(self, text: str) -> None:
        several = [] if text.isascii() else [s for s in grapheme_spans(text) if s[1] - s[0] > 1]
        self._starts = [start for start, _ in several]
        self._ends = [end for _, end in several]

    def around(self, start: int, end: int) -> Span:
        """The smallest span of whole clusters that holds a span."""
        first = bisect_right(self._starts, start) - 1
        if first >= 0 and start < self._ends[first]:
            start = self._starts[first]
        last = bisect_left(self._starts, end) - 1
        if last >= 0 and end < self._ends[last]:
            end = self._ends[last]
        return start, end


def printable(text: str) -> str:
    """The text with control characters made visible, character for character."""
    return text.translate(_control_pictures())


def n_columns(text: str) -> int:
    """How wide a text is, in characters of ordinary width; Chinese ones, say, are twice as wide."""
    return len(text) + sum(east_asian_width(character) in "FW" for character in text)


def shortened(text: str, longest: int = LONGEST_LABEL) -> str:
    """The text on one printable line of bounded width, with an ellipsis if it is cut.

    Args:
        text: The text.
        longest: The most columns. Default: those of a label.
    """
    line = " ".join(printable(text).split())
    if n_columns(line) <= longest:
        return line
    ends = (end for _, end in grapheme_spans(line[: longest + 1]))
    fitting = [end for end in ends if n_columns(line[:end]) < longest]
    return line[: max(fitting, default=0)].rstrip() + "\N{HORIZONTAL ELLIPSIS}"


@cache
def _control_pictures() -> dict[int, str]:
    pictures = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"}
    pictures[0x0D] = " "  # before a line feed it is no more than that
    pictures[0x7F] = "\N{SYMBOL FOR DELETE}"
    replaced = chain(range(0x80, 0xA0), range(0xD800, 0xE000), range(0x202A, 0x202F))
    return pictures | dict.fromkeys(
        chain(replaced, range(0x2066, 0x206A)), "\N{REPLACEMENT CHARACTER}"
    )
