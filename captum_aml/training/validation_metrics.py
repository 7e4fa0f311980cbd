"""Metrics of the benchmark by name, to choose the best weights by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from captum_aml.exceptions import InvalidInputError
from captum_aml.training.settings import ValidationMetric

#: Name: the function of ``captum_aml.metrics``, whether it is an AOPC form, whether higher is
#: better. Conventions and removal are the metrics' own defaults.
_KNOWN: dict[str, tuple[str, bool, bool]] = {
    "aopc-comprehensiveness": ("comprehensiveness", True, True),
    "aopc-sufficiency": ("sufficiency", True, False),
    "aopc-log-odds": ("log_odds", True, False),
    "comprehensiveness": ("comprehensiveness", False, True),
    "sufficiency": ("sufficiency", False, False),
    "log-odds": ("log_odds", False, False),
}


def validation_metrics() -> tuple[str, ...]:
    """The names that ``select_by`` takes beside ``loss``."""
    return tuple(_KNOWN)


def resolve_metric(select_by: str | ValidationMetric) -> ValidationMetric | None:
    """The metric that is meant; None for the validation loss.

    Raises:
        InvalidInputError: The name is unknown; the message lists those there are.
    """
    if isinstance(select_by, ValidationMetric):
        return select_by
    if select_by == "loss":
        return None
    if select_by not in _KNOWN:
        raise InvalidInputError(
            f"select_by: expected one of loss, {', '.join(_KNOWN)}, or a ValidationMetric, "
            f"got {select_by!r}"
        )
    function, aopc, higher = _KNOWN[select_by]
    return ValidationMetric(select_by, partial(_measure, function=function, aopc=aopc), higher)


# The attribution is one of captum_aml.attr, which is built on top of this module.
def _measure(attribution: Any, batch: Mapping[str, Any], *, function: str, aopc: bool) -> Tensor:
    """Values (N,) of a metric for the masks that the masker proposes for a batch."""
    # The metrics stand beside training, and nothing of theirs is needed to fit by the loss.
    from captum_aml import metrics

    measure: Callable[..., Tensor] = getattr(metrics, function)
    scores = attribution.attribute(**batch, n_steps=0)
    inputs = batch["inputs"]
    if isinstance(inputs, Tensor) and isinstance(scores, Tensor) and scores.dim() > inputs.dim():
        scores = scores.sum(dim=-1)  # a layer's scores are spread over its channels
    return measure(
        attribution.forward_func,
        inputs,
        scores,
        batch.get("baselines"),
        batch.get("additional_forward_args"),
        batch.get("target"),
        aopc=aopc,
        output=attribution.output,
    )


__all__ = ["resolve_metric", "validation_metrics"]
