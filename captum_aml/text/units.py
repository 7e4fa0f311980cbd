"""What has one mask value and one score: tokens, words or sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from captum_aml.exceptions import InvalidInputError
from captum_aml.text.encoding import TextBatch, TokenizedText
from captum_aml.text.segmentation import Segmenter, TokenGroups, Unit, group_text


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
        """The units of a text and which of them each ordinary token belongs to; None for tokens."""
        if self.unit == "token":
            return None
        return group_text(
            text.text,
            [span for span, keep in zip(text.offsets, text.ordinary, strict=True) if keep],
            self.unit,
            parts=text.parts,
            given_words=text.words,
            segmenter=self.segmenter,
            truncated=text.n_tokens_cut > 0,
        )


def feature_mask(batch: TextBatch, groups: Sequence[TokenGroups]) -> Tensor:
    """Group ids for a batch, (N, L), numbered within each text; 0 where a token is protected.

    Args:
        batch: N texts.
        groups: The groups of each.
    """
    mask = torch.zeros(batch.ordinary.shape, dtype=torch.long)
    ordinary = batch.ordinary.cpu()
    for row, found in enumerate(groups):
        mask[row, ordinary[row]] = torch.tensor(found.members, dtype=torch.long)
    return mask.to(batch.ordinary.device)


__all__ = ["TextUnits", "feature_mask"]
