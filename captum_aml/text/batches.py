"""Texts as the batches that ``fit`` takes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from captum_aml.exceptions import InvalidInputError
from captum_aml.text.classifier import TextClassifier


def fit_batches(
    classifier: TextClassifier, texts: Sequence[str], *, batch_size: int = 20, seed: int = 0
) -> list[dict[str, Any]]:  # keyword arguments of ``attribute``
    """Batches of texts of similar length in random order, as ``attribute`` and ``fit`` take them.

    Args:
        classifier: The model to explain.
        texts: Training texts.
        batch_size: Texts in a batch. Default: 20, as published.
        seed: Seed of the order of the batches. Default: 0.

    Raises:
        InvalidInputError: There is no text, or ``batch_size`` is not positive.
    """
    if isinstance(texts, str) or not texts:
        raise InvalidInputError("texts: expected a sequence of at least one string")
    if batch_size < 1:
        raise InvalidInputError(f"batch_size: expected 1 or more, got {batch_size}")
    ordered = sorted(classifier.tokenize(texts), key=len)
    batches = []
    for start in range(0, len(ordered), batch_size):
        batch = classifier.collate(ordered[start : start + batch_size])
        batches.append(
            {
                "inputs": batch.input_ids,
                "baselines": classifier.reference_ids(batch),
                "additional_forward_args": batch.forward_args,
            }
        )
    random.Random(seed).shuffle(batches)
    return batches
