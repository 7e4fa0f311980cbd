"""Finds out by trial how tokens can be hidden from a model's attention."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from captum_aml.exceptions import CaptumAMLError
from captum_aml.perturbation import AttentionRemoval, ForwardState
from captum_aml.text.classifier import TextClassifier
from captum_aml.text.encoding import TextBatch

# Relative to logits of around one; another mask takes another way through the attention kernels.
_TOLERANCE = 1e-3


def attention_removal(classifier: TextClassifier, texts: Sequence[str]) -> str | None:
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
    return next(
        (
            removal.name
            for removal in (AttentionRemoval(), AttentionRemoval(causal=True))
            if _is_taken(classifier, batch, removal)
        ),
        None,
    )


@torch.no_grad()
def _is_taken(classifier: TextClassifier, batch: TextBatch, removal: AttentionRemoval) -> bool:
    mask = batch.attention_mask
    shown = torch.ones(mask.shape, device=mask.device)
    hidden = shown.masked_fill(batch.ordinary, 0.0)
    state = ForwardState((shown,), (hidden,), batch.forward_args, attention_mask=0)
    with classifier.evaluating():
        plain = classifier(batch.input_ids, *batch.forward_args).float()
        try:
            with_all, with_none = (
                classifier(batch.input_ids, *removal(state, (keep,)).args).float()
                for keep in (shown, hidden)
            )
        except CaptumAMLError:
            raise
        except Exception:  # whatever a model says to a mask of four dimensions
            return False
    tolerance = _TOLERANCE * max(1.0, float(plain.abs().max()))
    same = plain.shape == with_all.shape and bool(((plain - with_all).abs() <= tolerance).all())
    return same and not torch.equal(with_all, with_none)


__all__ = ["attention_removal"]
