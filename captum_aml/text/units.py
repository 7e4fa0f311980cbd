"""Units of texts, which have one mask value and one score: tokens, words or sentences."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor

from captum_aml.exceptions import InvalidInputError
from captum_aml.text.encoding import TextBatch, TokenizedText
from captum_aml.text.grouping import TokenGroups, group_text
from captum_aml.text.inputs import Span, Text
from captum_aml.text.segmentation import Segmenter, Unit


@dataclass(frozen=True)
class TextUnits:
    """Finds the units of texts.

    Words that were given one by one are the words; of a pair, each text is segmented by itself.

    Attributes:
        unit: "token", "word" or "sentence".
        segmenter: Finds the units of a text, as spans in order; None for the usual ones.

    Raises:
        InvalidInputError: The unit is unknown, or there is a segmenter for tokens.
    """

    unit: Unit = "token"
    segmenter: Segmenter | None = None

    def __post_init__(self) -> None:
        if self.unit not in get_args(Unit):
            raise InvalidInputError(f"unit: expected one of {get_args(Unit)}, got {self.unit!r}")
        if self.segmenter is not None and self.unit == "token":
            raise InvalidInputError(
                "segmenter: expected none with unit='token', whose units are the tokenizer's"
            )

    def groups(self, text: TokenizedText) -> TokenGroups | None:
        """The units of a text and which of them each maskable token belongs to.

        Copies of a token belong to the same. None where every token is one of its own.
        """
        if self.unit == "token" and text.copies is None:
            return None
        spans = [span for span, keep in zip(text.offsets, text.maskable, strict=True) if keep]
        copies = range(len(spans)) if text.copies is None else text.copies
        by_token = dict(zip(copies, spans, strict=True))
        tokens = [by_token[number] for number in range(len(by_token))]
        if self.unit == "token":
            return TokenGroups(tuple(tokens), tuple(copies))
        found = group_text(
            Text(text.text, text.parts, text.words),
            tokens,
            self.unit,
            segmenter=self.segmenter,
            truncated=text.n_tokens_cut > 0,
        )
        return replace(found, members=tuple(found.members[number] for number in copies))

    def of_batch(self, batch: TextBatch) -> tuple[list[TokenGroups], Tensor | None]:
        """The units of N texts, and their ids by position, (N, L).

        Ids are numbered within each text; where a token is not maskable they are 0. [] and None
        where every token is one of its own.
        """
        if self.unit == "token" and all(text.copies is None for text in batch.texts):
            return [], None
        groups = [found for text in batch.texts if (found := self.groups(text))]
        mask = torch.zeros(batch.maskable.shape, dtype=torch.long)
        maskable = batch.maskable.cpu()
        for row, found in enumerate(groups):
            mask[row, maskable[row]] = torch.tensor(found.members, dtype=torch.long)
        return groups, mask.to(batch.maskable.device)


#: How the scores of a unit's tokens become its own.
ScorePooling: TypeAlias = Literal["max", "sum", "mean"]


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
    text: str, groups: TokenGroups, scores: Sequence[float], pooling: ScorePooling = "max"
) -> list[ScoredUnit]:
    """One score for each group of tokens, in the order of the text.

    Args:
        text: The text.
        groups: G groups of T tokens.
        scores: The score of each token (T).
        pooling: "max" (by value, so that a signed score against the class counts only where no
            token supports it), "sum" or "mean". Default: "max".

    Raises:
        InvalidInputError: The pooling is unknown.
    """
    if pooling not in _POOLS:
        raise InvalidInputError(
            f"pooling: expected one of {get_args(ScorePooling)}, got {pooling!r}"
        )
    values: list[list[float]] = [[] for _ in groups.spans]
    for member, score in zip(groups.members, scores, strict=True):
        values[member].append(score)
    return [
        ScoredUnit(text[slice(*span)], span, _POOLS[pooling](own))
        for span, own in zip(groups.spans, values, strict=True)
    ]


_POOLS: dict[str, Callable[[Sequence[float]], float]] = {
    "max": max,
    "sum": math.fsum,
    "mean": lambda values: math.fsum(values) / len(values),
}
