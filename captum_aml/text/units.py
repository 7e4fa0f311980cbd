"""Units of texts, which have one mask value and one score: tokens, words or sentences."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor

from captum_aml._utils.checks import as_count
from captum_aml.exceptions import InvalidInputError
from captum_aml.methods import Setting
from captum_aml.text.encoding import TextBatch, TokenizedText
from captum_aml.text.grouping import TokenGroups, group_text
from captum_aml.text.inputs import Span, Text
from captum_aml.text.nesting import NestedGroups, nest
from captum_aml.text.segmentation import Segmenter, Unit
from captum_aml.text.segmenters import check_segmenter_name

_N_SENTENCES = 3


@dataclass(frozen=True)
class TextUnits:
    """Finds the units of texts.

    Words that were given one by one are the words; of a pair, each text is segmented by itself.

    Attributes:
        unit: "token", "word", "sentence", or "sentence+word": sentences, and words inside the
            highest of them, see :mod:`captum_aml.text.nesting`.
        segmenter: Finds the units of a text, with "sentence+word" its words, as spans in order; or
            the name of one; None for the usual ones.
        n_sentences: The number of sentences whose words are units, with "sentence+word"; None for
            3, and with other units.

    Raises:
        InvalidInputError: The unit is unknown, or has no use for the segmenter or the number of
            sentences.
        ImportError: The package of a segmenter that is named is not installed.
    """

    unit: Unit = "token"
    segmenter: Segmenter | str | None = None
    n_sentences: int | None = None

    def __post_init__(self) -> None:
        if self.unit not in get_args(Unit):
            raise InvalidInputError(f"unit: expected one of {get_args(Unit)}, got {self.unit!r}")
        if self.segmenter is not None and self.unit == "token":
            raise InvalidInputError(
                "segmenter: expected none with unit='token', whose units are the tokenizer's"
            )
        if isinstance(self.segmenter, str):
            check_segmenter_name(self.segmenter, self.unit)
        if self.n_sentences is not None:
            as_count("n_sentences", self.n_sentences, least=1)
            if not self.nested:
                raise InvalidInputError(
                    f"n_sentences: expected none with unit={self.unit!r}; it goes with "
                    "'sentence+word'"
                )

    @property
    def settings(self) -> dict[str, Setting]:
        """What decides scores beside the unit."""
        named = {"segmenter": self.segmenter} if isinstance(self.segmenter, str) else {}
        return {**named, "n_sentences": self.n_opened} if self.nested else {**named}

    @property
    def of_fit(self) -> TextUnits:
        """The units that a masker is fitted on: of nested ones the words."""
        return replace(self, unit="word", n_sentences=None) if self.nested else self

    @property
    def nested(self) -> bool:
        """Whether words are units inside some sentences only."""
        return self.unit == "sentence+word"

    @property
    def n_opened(self) -> int:
        """The number of sentences whose words are units, of nested ones."""
        return _N_SENTENCES if self.n_sentences is None else self.n_sentences

    def groups(self, text: TokenizedText) -> TokenGroups | None:
        """The units of a text and which of them each maskable token belongs to.

        Copies of a token belong to the same. None where every token is one of its own. Of nested
        units the sentences.
        """
        if self.unit == "token" and text.copies is None:
            return None
        if self.nested:
            return self.nested_groups(text).sentences
        tokens, copies = _distinct(text)
        if self.unit == "token":
            return TokenGroups(tuple(tokens), tuple(copies))
        found = group_text(
            _written(text),
            tokens,
            self.unit,
            segmenter=self.segmenter,
            truncated=text.n_tokens_cut > 0,
        )
        return found.taken(copies)

    def nested_groups(self, text: TokenizedText) -> NestedGroups:
        """The words of a text and their sentences, for its maskable tokens."""
        tokens, copies = _distinct(text)
        found = nest(
            _written(text), tokens, segmenter=self.segmenter, truncated=text.n_tokens_cut > 0
        )
        return replace(
            found, sentences=found.sentences.taken(copies), words=found.words.taken(copies)
        )

    def of_batch(self, batch: TextBatch) -> tuple[list[TokenGroups], Tensor | None]:
        """The units of N texts, and their ids by position, (N, L).

        Ids are numbered within each text; where a token is not maskable they are 0. [] and None
        where every token is one of its own.
        """
        if self.unit == "token" and all(text.copies is None for text in batch.texts):
            return [], None
        groups = [found for text in batch.texts if (found := self.groups(text))]
        return groups, by_position(batch, [found.members for found in groups])


def by_position(batch: TextBatch, members: Sequence[Sequence[int]]) -> Tensor:
    """Numbers of maskable tokens by position, (N, L); 0 elsewhere.

    Args:
        batch: N texts.
        members: A number for each maskable token of each text.
    """
    mask = torch.zeros(batch.maskable.shape, dtype=torch.long)
    maskable = batch.maskable.cpu()
    for row, numbers in enumerate(members):
        mask[row, maskable[row]] = torch.tensor(numbers, dtype=torch.long)
    return mask.to(batch.maskable.device)


def scores_of_groups(groups: TokenGroups, values: Sequence[float]) -> list[float]:
    """The score of each group (G), from the values of its tokens (T).

    All tokens of a group have its score, but for those that are the baseline already.
    """
    best = [0.0] * len(groups.spans)
    for member, value in zip(groups.members, values, strict=True):
        if abs(value) >= abs(best[member]):
            best[member] = value
    return best


def _written(text: TokenizedText) -> Text:
    return Text(text.text, text.parts, text.words)


def _distinct(text: TokenizedText) -> tuple[list[Span], Sequence[int]]:
    """The spans of a text's maskable tokens without copies, and of each token its number there."""
    spans = [span for span, keep in zip(text.offsets, text.maskable, strict=True) if keep]
    copies = range(len(spans)) if text.copies is None else text.copies
    by_token = dict(zip(copies, spans, strict=True))
    return [by_token[number] for number in range(len(by_token))], copies


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
