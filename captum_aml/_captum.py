"""The one place that touches Captum's private helpers."""

from __future__ import annotations

from typing import Any

from captum._utils.common import _expand_additional_forward_args, _is_mask_valid
from captum._utils.models.linear_model import SkLearnRidge
from captum.attr import GradientAttribution, LayerAttribution
from captum.log import log_usage
from torch import Tensor


def expand_args(args: tuple[Any, ...], times: int) -> tuple[Any, ...]:
    """Repeats tensor arguments ``times`` times along dimension 0, as Captum does; others stay."""
    expanded: tuple[Any, ...] | None = _expand_additional_forward_args(args, times)
    assert expanded is not None
    return expanded


def broadcasts(mask: Tensor, inputs: Tensor) -> bool:
    """Whether a feature mask fits a tensor by Captum's rule: every trailing size equal or one."""
    return bool(_is_mask_valid(mask, inputs))


__all__ = [
    "GradientAttribution",
    "LayerAttribution",
    "SkLearnRidge",
    "broadcasts",
    "expand_args",
    "log_usage",
]
