"""Finds out by trial how tokens can be hidden from a model's attention."""

from __future__ import annotations

from collections.abc import Sequence

from captum_aml.masking.attention import taken_removal
from captum_aml.text.inputs import TextLike
from captum_aml.text.model import TextModel


def attention_removal(classifier: TextModel, texts: Sequence[TextLike]) -> str | None:
    """The perturbation that hides tokens from a model's attention, if the model takes it.

    ``attention`` and ``causal-attention`` give the model an additive mask (N, 1, Q, L). Whether it
    takes such a mask, and whether its own attention is causal, is tried out: with nothing hidden
    the logits have to be those of the ordinary mask, and with something hidden others.

    Args:
        classifier: The model.
        texts: One or more, of which the two shortest and the two longest are tried, so that
            padding takes part, and windows of attention.

    Returns:
        ``attention``, ``causal-attention``, or None where the model takes neither.
    """
    ordered = sorted(classifier.tokenize(texts), key=len)
    batch = classifier.collate(ordered[:2] + ordered[2:][-2:])
    with classifier.evaluating():
        removal = taken_removal(
            classifier, batch.input_ids, batch.ordinary, batch.forward_args, attention_mask=0
        )
    return None if removal is None else removal.name


__all__ = ["attention_removal"]
