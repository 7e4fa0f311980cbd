"""Defaults of a fit that depend on what is fitted, those that did best in our measurements."""

from __future__ import annotations

from captum_aml.training.settings import LossName


def default_loss(method: str) -> LossName:
    """The loss for ``aml`` or ``la``: regression knows nothing of LA."""
    return "regression" if method == "aml" else "objective"


def default_rate(*, head: bool) -> float:
    """AdamW's highest rate, for an encoder that was pretrained or for a head on hidden states."""
    return 1e-3 if head else 1e-4


__all__ = ["default_loss", "default_rate"]
