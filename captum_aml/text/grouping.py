"""Groups of a text's tokens: the words, or the sentences, that they belong to."""

from __future__ import annotations

import operator
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from captum_aml._utils.graphemes import grapheme_spans
from captum_aml.exceptions import InvalidInputError
from captum_aml.text.inputs import Span, Text
from captum_aml.text.segmentation import Segmenter, Unit, sentence_spans, trimmed, word_spans
from captum_aml.text.segmenters import segmenter_named


@dataclass(frozen=True)
class TokenGroups:
    """T tokens in G groups.

    Attributes:
        spans: The characters of each group, in the order of the text, none overlapping (G).
        members: The number of each token's group (T).
    """

    spans: tuple[Span, ...]
    members: tuple[int, ...]

    def taken(self, tokens: Sequence[int]) -> TokenGroups:
        """The same groups of the tokens with these numbers, each any number of times."""
        return replace(self, members=tuple(self.members[token] for token in tokens))


def unit_spans(text: Text, unit: Unit, segmenter: Segmenter | str | None = None) -> list[Span]:
    """The words or sentences of a text; every character but white space is in one of them.

    None reaches over both texts of a pair. Words that were given one by one are the words, and no
    sentence cuts one.

    Args:
        text: The text.
        unit: "word" or "sentence".
        segmenter (optional): Gives the spans of the units of a string, or the name of one that
            finds words. White space around them is taken off, and what they leave out is split as
            without a segmenter. It takes precedence over given words. Default: None,
            ``word_spans`` or ``sentence_spans``.

    Raises:
        InvalidInputError: ``unit`` is neither of the two, there is no segmenter of that name for
            it, or the segmenter gives no spans in order within the text.
        ImportError: What the named segmenter needs is not installed.
    """
    if unit not in ("word", "sentence"):
        raise InvalidInputError(f"unit: expected 'word' or 'sentence', got {unit!r}")
    if isinstance(segmenter, str):
        segmenter = segmenter_named(segmenter, unit)
    if segmenter is not None and not callable(segmenter):
        raise InvalidInputError(
            "segmenter: expected a function from a text to the spans (start, end) of its units, "
            f"got {type(segmenter).__name__}"
        )
    default = word_spans if unit == "word" else sentence_spans
    units: list[Span] = []
    for start, end in text.regions:
        piece = text.text[start:end]
        if segmenter is not None:
            found = _completed(piece, _checked_spans(segmenter(piece), piece), default)
        elif unit == "word" and text.words is not None:
            inside = [(a - start, b - start) for a, b in text.words if start <= a and b <= end]
            found = _completed(piece, inside, default)
        else:
            found = default(piece)
        units += [(start + a, start + b) for a, b in found]
    if unit == "sentence" and text.words is not None and segmenter is None:
        units, _ = _joined(text.words, units)
    return units


def group_tokens(offsets: Sequence[Span], units: Sequence[Span]) -> TokenGroups:
    """Groups tokens by the units with which they share characters.

    A token that overlaps several units joins them to one group, which reaches from the first to the
    last of them. A token in no unit is a group of its own, together with those that share
    characters with it. Units without a token are left out.

    Args:
        offsets: Character span of each of T tokens, in any order.
        units: Spans of words, say, in order and not overlapping.
    """
    return _numbered(offsets, *_joined(offsets, units))


def group_text(
    text: Text,
    offsets: Sequence[Span],
    unit: Unit,
    *,
    segmenter: Segmenter | str | None = None,
    truncated: bool = False,
) -> TokenGroups:
    """Groups the tokens of a text into its words or sentences; every token is in one group.

    As ``group_tokens`` over ``unit_spans``, and a token of white space, or without characters,
    belongs to the unit of the next token of the same text that is in one, or else of the last
    before it. (So " film" and " ", "film" give the same word.) In a text of nothing but white space
    tokens are their own groups.

    Args:
        text: The text.
        offsets: Character span of each of T tokens in it.
        unit: "word" or "sentence".
        segmenter (optional): See ``unit_spans``. Default: None.
        truncated: Whether tokens were cut off. A unit that is seen in part then ends, or begins,
            with what is seen of it. Default: False.

    Raises:
        InvalidInputError: As ``unit_spans`` does.
    """
    spans, found = _joined(offsets, unit_spans(text, unit, segmenter))
    begins = [start for start, _ in text.regions]
    places = [max(0, bisect_right(begins, start) - 1) for start, _ in offsets]
    _adopt(found, places, reversed(range(len(offsets))))
    _adopt(found, places, range(len(offsets)))
    groups = _numbered(offsets, spans, found)
    if not truncated:
        return groups
    clipped = list(groups.spans)
    for number, region in enumerate(text.regions):
        seen = [o for o, place in zip(offsets, places, strict=True) if place == number]
        inside = [i for i, span in enumerate(clipped) if region[0] <= span[0] < region[1]]
        if seen and inside:
            first, last = min(a for a, _ in seen), max(b for _, b in seen)
            clipped[inside[0]] = _clipped(text.text, clipped[inside[0]], first, last)
            clipped[inside[-1]] = _clipped(text.text, clipped[inside[-1]], first, last)
    return TokenGroups(tuple(clipped), groups.members)


def _joined(offsets: Sequence[Span], units: Sequence[Span]) -> tuple[list[Span], list[int | None]]:
    """Units with those joined that share a token, and the number of each token's unit."""
    starts, ends = [start for start, _ in units], [end for _, end in units]
    changes = [0] * len(units)
    firsts: list[int | None] = []
    for start, end in offsets:
        first = bisect_right(ends, start)
        last = bisect_left(starts, max(end, start)) - 1
        firsts.append(first if first <= last else None)
        if first < last:
            changes[first] += 1
            changes[last] -= 1
    spans: list[Span] = []
    numbers: list[int] = []
    joins = False
    for unit, depth in zip(units, accumulate(changes), strict=True):
        if joins:
            spans[-1] = (spans[-1][0], unit[1])
        else:
            spans.append(unit)
        numbers.append(len(spans) - 1)
        joins = depth > 0
    return spans, [None if first is None else numbers[first] for first in firsts]


def _adopt(found: list[int | None], places: Sequence[int], order: Iterable[int]) -> None:
    """Gives tokens without a unit that of the one before them in this order, in the same text."""
    nearest: int | None = None
    place: int | None = None
    for i in order:
        if places[i] != place:
            nearest, place = None, places[i]
        if found[i] is None:
            found[i] = nearest
        else:
            nearest = found[i]


def _numbered(
    offsets: Sequence[Span], spans: Sequence[Span], found: Sequence[int | None]
) -> TokenGroups:
    """Groups in the order of the text: the spans with a token, and tokens outside all of them."""
    groups = list(spans)
    members = [-1 if number is None else number for number in found]
    alone = sorted((i for i, number in enumerate(found) if number is None), key=offsets.__getitem__)
    for i in alone:
        start, end = offsets[i]
        if len(groups) > len(spans) and start < groups[-1][1]:
            groups[-1] = (groups[-1][0], max(groups[-1][1], end))
        else:
            groups.append((start, end))
        members[i] = len(groups) - 1
    order = sorted(set(members), key=groups.__getitem__)
    number = {group: position for position, group in enumerate(order)}
    return TokenGroups(
        tuple(groups[group] for group in order), tuple(number[group] for group in members)
    )


def _clipped(text: str, span: Span, first: int, last: int) -> Span:
    """The part of a span between two characters, without cutting a grapheme cluster."""
    start, end = span
    if start >= first and end <= last:
        return span
    clusters = [(start + a, start + b) for a, b in grapheme_spans(text[start:end])]
    seen = [(a, b) for a, b in clusters if b > first and a < last]
    return (seen[0][0], seen[-1][1]) if seen else span


def _completed(text: str, found: Iterable[Span], split: Callable[[str], list[Span]]) -> list[Span]:
    """Spans without the white space around them, and what lies between them split."""
    units: list[Span] = []
    position = 0
    for span in [*found, (len(text), len(text))]:
        start, end = trimmed(text, span)
        if start == end < len(text):
            continue
        units += [(position + a, position + b) for a, b in split(text[position:start])]
        if end > start:
            units.append((start, end))
        position = end
    return units


def _checked_spans(found: object, text: str) -> list[Span]:
    """A segmenter's result, which has to be spans in order within the text."""
    expected = "segmenter: expected it to give spans (start, end) of integers"
    if not isinstance(found, Iterable):
        raise InvalidInputError(f"{expected}, got {type(found).__name__}")
    spans: list[Span] = []
    position = 0
    for item in found:
        try:
            start, end = map(operator.index, item)
        except (TypeError, ValueError):
            raise InvalidInputError(f"{expected}, got {item!r}") from None
        if not position <= start <= end <= len(text):
            raise InvalidInputError(
                f"segmenter: expected spans in order, none overlapping, within the text's "
                f"{len(text)} characters, got {(start, end)} after {spans[-1] if spans else None}"
            )
        spans.append((start, end))
        position = end
    return spans
