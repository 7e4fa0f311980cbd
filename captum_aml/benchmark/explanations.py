"""Explanations that were made elsewhere: read, checked, and carried over to a model's tokens."""

from __future__ import annotations

import math
import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captum_aml._utils.rows import Lines, json_rows, missing_column, shown
from captum_aml.exceptions import InvalidInputError
from captum_aml.text.data import LabelledText, check_span, is_int, labelled_text
from captum_aml.text.inputs import Span

_CONTINUES = "##"
_SPACES = ("Ġ", "▁")


@dataclass(frozen=True)
class GivenExplanation:
    """Scores of a text's S spans by some method.

    Attributes:
        example: The text, with its label and rationale where they are known.
        spans: Characters ``[start, end)`` of the text that the scores are of. They may overlap,
            and need not cover the text. An empty one stands for a token without characters.
        scores: The S scores, higher where a span supports the explained class more.
        method: The method's name; None where it is not said.
        seed: The seed of its random choices; None where it is not said.
        target: The explained class, as an index or a name; None where it is not said.
    """

    example: LabelledText
    spans: tuple[Span, ...]
    scores: tuple[float, ...]
    method: str | None = None
    seed: int | None = None
    target: int | str | None = None


def read_explanations(path: str | os.PathLike[str]) -> list[GivenExplanation]:
    """Explanations from a ``.jsonl`` file with an object on every line; blank lines are skipped.

    An object holds ``text`` and ``scores``, and what the scores are of: character spans
    ``[start, end)`` in ``offsets`` or ``spans``, or else ``tokens``, strings that occur in the
    text one after another. Optional are ``method``, ``seed``, ``target`` (the explained
    class as an index or a name), ``id``, ``label`` and ``rationale``. Other fields are ignored,
    so that what ``captum-aml explain --output`` writes can be read.

    Tokens are searched from left to right, see ``align_tokens``.

    Args:
        path: The file.

    Raises:
        InvalidInputError: A line is broken, lacks a field, or holds a value of another form; a
            score is NaN or infinite; there are more or fewer scores than tokens; a span is not
            within the text; a token is not found; the text is blank; two lines have the same
            text, id, method, seed and explained class; or there is no line at all. The message
            names file and line.
        OSError: The file cannot be opened.
    """
    file = Path(path)
    if file.suffix.lower() != ".jsonl":
        raise InvalidInputError(
            f"explanations: expected a file in the format .jsonl, got {os.fspath(path)!r}"
        )
    explanations: list[GivenExplanation] = []
    seen: dict[tuple[object, ...], int] = {}
    with file.open("rb") as stream:
        lines = Lines(stream, os.fspath(path))
        for row in json_rows(lines):
            try:
                given = _given(row)
            except InvalidInputError as error:
                raise lines.error(str(error)) from None
            item = given.example
            key = (item.text, item.id, given.method, given.seed, given.target)
            if key in seen:
                raise lines.error(
                    "expected one explanation of a text by a method with a seed, got the second "
                    f"one after line {seen[key]}; tell equal texts apart by a field 'id'"
                )
            seen[key] = lines.number
            explanations.append(given)
    if not explanations:
        raise InvalidInputError(f"{os.fspath(path)}: expected explanations, got none")
    return explanations


def align_tokens(tokens: Sequence[str], text: str) -> list[Span]:
    """Character spans of tokens in their text.

    Each is searched from the end of the one before. The marks of subword vocabularies are no
    part of it: "##" at the start of a WordPiece that continues a word, "Ġ" or "▁" for a space
    (a token of nothing else has no characters). Tokens of models that take no notice of capitals
    and accents are found, too: where tokens have neither, they are searched as they are and with
    both disregarded, and the way that leaves out fewer characters counts. Where they have, both
    are disregarded only if the tokens are not found otherwise.

    Args:
        tokens: The tokens in the order of the text, without special ones.
        text: The text.

    Returns:
        A span ``[start, end)`` for each token.

    Raises:
        InvalidInputError: A token is not there, or not after those before it.
    """
    exact, plain = (_search(tokens, text, fold) for fold in (str, _without_case_and_accents))
    found = [spans for spans in (exact, plain) if len(spans) == len(tokens)]
    if not found:
        failed = max(len(exact), len(plain))
        raise InvalidInputError(
            f"tokens: expected strings that stand in the text one after another, got token "
            f"{failed + 1} {shown(tokens[failed])}, which does not stand behind those before it; "
            "leave special tokens out, or give 'offsets'"
        )
    if any(map(_has_case_or_accents, tokens)):
        return found[0]
    return min(found, key=lambda spans: _left_out(text, spans))


def scores_for_tokens(
    spans: Sequence[Span], scores: Sequence[float], offsets: Sequence[Span]
) -> list[float]:
    """Carries scores of spans of characters over to a model's own tokens.

    A token gets the score of the span that it shares characters with: a word's score goes to
    each of the word's tokens. Where there are several such spans, the score that is largest in
    absolute value counts, the positive one of two that are equally large: a word is as important
    as its most important letter. A token that shares characters with no span gets 0.

    Args:
        spans: Characters ``[start, end)`` of the text.
        scores: A score for each span.
        offsets: Characters ``[start, end)`` of each of the model's tokens in the same text.

    Returns:
        A score for each token.

    Raises:
        InvalidInputError: There are more or fewer scores than spans, or one is not finite.
    """
    _check_count(scores, spans, "spans")
    strongest: dict[int, float] = {}
    for (start, end), score in zip(spans, scores, strict=True):
        _check_score(score)
        for character in range(start, end):
            strongest[character] = max(strongest.get(character, score), score, key=_strength)
    return [
        max((strongest[c] for c in range(start, end) if c in strongest), key=_strength, default=0.0)
        for start, end in offsets
    ]


def _strength(score: float) -> tuple[float, float]:
    return abs(score), score


# A row holds values of any type, which are checked here.
def _given(row: Mapping[str, Any]) -> GivenExplanation:
    for name in ("text", "scores"):
        if name not in row:
            raise InvalidInputError(missing_column(name, row))
    example = labelled_text(row["text"], row.get("label"), row.get("rationale"), row.get("id"))
    scores = _list("scores", row["scores"])
    for score in scores:
        _check_score(score)
    method, seed, target = row.get("method"), row.get("seed"), row.get("target")
    if method is not None and not isinstance(method, str):
        raise InvalidInputError(f"method: expected a name, got {shown(method)}")
    if seed is not None and not is_int(seed):
        raise InvalidInputError(f"seed: expected an integer, got {shown(seed)}")
    if target is not None and not isinstance(target, str) and not is_int(target):
        raise InvalidInputError(f"target: expected an index or a name, got {shown(target)}")
    return GivenExplanation(
        example=example,
        spans=tuple(_spans(row, example.text, scores)),
        scores=tuple(map(float, scores)),
        method=method,
        seed=seed,
        target=target,
    )


def _spans(row: Mapping[str, Any], text: str, scores: Sequence[object]) -> list[Span]:
    tokens = None if row.get("tokens") is None else _list("tokens", row["tokens"])
    for token in tokens or ():
        if not isinstance(token, str):
            raise InvalidInputError(f"tokens: expected strings, got {shown(token)}")
    if tokens is not None:
        _check_count(scores, tokens, "tokens")
    names = [name for name in ("offsets", "spans") if row.get(name) is not None]
    if len(names) > 1:
        raise InvalidInputError("offsets: expected one of 'offsets' and 'spans', got both")
    if names:
        spans = _list(names[0], row[names[0]])
        _check_count(scores, spans, names[0])
        for span in spans:
            check_span(names[0], span, text, may_be_empty=True)
        return [(start, end) for start, end in spans]
    if tokens is None:
        raise InvalidInputError(
            f"tokens: expected one of 'tokens', 'offsets' and 'spans', got "
            f"{', '.join(map(repr, row))}"
        )
    return align_tokens(tokens, text)


def _list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidInputError(f"{name}: expected a list, got {shown(value)}")
    return value


def _check_count(scores: Sequence[object], things: Sequence[object], name: str) -> None:
    if len(scores) != len(things):
        raise InvalidInputError(
            f"scores: expected one for each of the {len(things)} {name}, got {len(scores)}"
        )


def _check_score(score: object) -> None:
    if isinstance(score, (int, float)) and not isinstance(score, bool):
        try:
            if math.isfinite(score):
                return
        except OverflowError:  # an integer beyond the largest float
            pass
    raise InvalidInputError(f"scores: expected finite numbers, got {shown(score)}")


def _search(tokens: Sequence[str], text: str, fold: Callable[[str], str]) -> list[Span]:
    """Spans of the tokens from the first up to one that is not found."""
    folded = list(map(fold, text))
    haystack = "".join(folded)
    origin = [index for index, characters in enumerate(folded) for _ in characters]
    spans: list[Span] = []
    position = 0
    for token in tokens:
        needles = ["".join(map(fold, form)) for form in _forms(token)]
        if "" in needles:
            here = spans[-1][1] if spans else 0
            spans.append((here, here))
            continue
        places = [(haystack.find(n, position), len(n)) for n in needles]
        places = [place for place in places if place[0] >= 0]
        if not places:
            break
        # The earliest place, and there the longest form.
        start, length = min(places, key=lambda place: (place[0], -place[1]))
        position = start + length
        spans.append((origin[start], origin[position - 1] + 1))
    return spans


def _forms(token: str) -> list[str]:
    """A token as it is, and without the marks of subword vocabularies."""
    if token.startswith(_CONTINUES) and token != _CONTINUES:
        return [token, token.removeprefix(_CONTINUES)]
    return [token, token.lstrip("".join(_SPACES))]


def _without_case_and_accents(character: str) -> str:
    decomposed = unicodedata.normalize("NFKD", character.lower())
    return "".join(c for c in decomposed if unicodedata.category(c) != "Mn")


def _has_case_or_accents(token: str) -> bool:
    return token != "".join(map(_without_case_and_accents, token))


def _left_out(text: str, spans: Sequence[Span]) -> int:
    """The number of characters other than white space before and between spans."""
    starts = [start for start, _ in spans]
    ends = [0, *(end for _, end in spans)]
    return sum(len("".join(text[a:b].split())) for a, b in zip(ends, starts, strict=False))
