"""From the scores of tokens to those of words and sentences."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeAlias, get_args

from captum_aml.exceptions import InvalidInputError
from captum_aml.text.inputs import Span
from captum_aml.text.segmentation import TokenGroups

#: How the scores of a unit's tokens become its own.
Pooling: TypeAlias = Literal["max", "sum", "mean"]


class ScoredUnit(NamedTuple):
    """A word or a sentence with its score.

    Attributes:
        text: The unit as it is written in the text.
        span: Its characters in the text.
        score: Its score.
    """

    text: str
    span: Span
    score: float


def pool(
    text: str, groups: TokenGroups, scores: Sequence[float], pooling: Pooling = "max"
) -> list[ScoredUnit]:
    """One score for each group of tokens, in the order of the text.

    Args:
        text: The text.
        groups: G groups of T tokens.
        scores: The score of each token (T).
        pooling: "max" (by value, so that a signed score against the class counts only where no
            token speaks for it), "sum" or "mean". Default: "max".

    Raises:
        InvalidInputError: The pooling is unknown.
    """
    if pooling not in _POOLS:
        raise InvalidInputError(f"pooling: expected one of {get_args(Pooling)}, got {pooling!r}")
    values: list[list[float]] = [[] for _ in groups.spans]
    for member, score in zip(groups.members, scores, strict=True):
        values[member].append(score)
    pooled = map(_POOLS[pooling], values)
    return [
        ScoredUnit(text[slice(*span)], span, score)
        for span, score in zip(groups.spans, pooled, strict=True)
    ]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


_POOLS: dict[str, Callable[[Sequence[float]], float]] = {
    "max": max,
    "sum": math.fsum,
    "mean": _mean,
}

__all__ = ["Pooling", "ScoredUnit", "pool"]
