"""Validation texts as batches, with their human rationales by position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from captum_aml._utils.checks import as_count
from captum_aml.exceptions import InvalidInputError
from captum_aml.metrics import rationale_labels
from captum_aml.text.data import LabelledText
from captum_aml.text.encoding import TextBatch
from captum_aml.text.models.base import TextModel


def validation_batches(
    text_model: TextModel, texts: Sequence[LabelledText], *, batch_size: int = 32
) -> tuple[list[dict[str, Any]], list[Tensor | None]]:  # keyword arguments of ``attribute``
    """Batches of ``texts``, shortest first, and their human rationales by position.

    Both are as :class:`captum_aml.training.MaskerScore` takes them.

    Args:
        text_model: The explained model.
        texts: The texts.
        batch_size: The most texts in a batch. Default: 32.

    Raises:
        InvalidInputError: There is no text, or ``batch_size`` is not positive.
    """
    if not texts:
        raise InvalidInputError("texts: expected one validation text or more, got none")
    size = as_count("batch_size", batch_size, least=1)
    tokenized = text_model.tokenize([item.text for item in texts])
    batches: list[dict[str, Any]] = []
    rationales: list[Tensor | None] = []
    for chosen in text_model.batches(tokenized, size):
        batch = text_model.collate([tokenized[i] for i in chosen])
        batches.append(text_model.arguments(batch))
        rationales.append(rationales_of(batch, [texts[i] for i in chosen]))
    return batches, rationales


def rationales_of(batch: TextBatch, data: Sequence[LabelledText]) -> Tensor | None:
    """Human rationales by position, (N, L) of bool; None where no text has any."""
    if all(item.rationale is None for item in data):
        return None
    maskable = batch.maskable.cpu()
    labels = torch.zeros(maskable.shape, dtype=torch.bool)
    for row, (text, item) in enumerate(zip(batch.texts, data, strict=True)):
        marked = rationale_labels(text.offsets, item.rationale or ())
        labels[row, maskable[row]] = marked[torch.tensor(text.maskable)]
    return labels
