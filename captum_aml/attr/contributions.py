"""Contributions: scores of any height as shares of a difference, and as a mask, in their order."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_aml.maskers.base import NEUTRAL_LOGIT

#: The largest contribution's mask logit above the neutral one.
LARGEST_LOGIT = 4.0

#: Of scores that cancel out, at least this share of their absolute sum counts as their sum.
_LEAST_SUM = 0.25
#: The most that scores are stretched on one side of zero, and pressed together on the other, to
#: make up what their sum lacks.
_MOST_STRETCH = 0.9


def completed(
    scores: Tensor, difference: Tensor, maskable: Tensor, scale: Tensor | None = None
) -> Tensor:
    r"""Contributions that sum to a difference, in the order of scores.

    .. math:: c_u = s \, \phi_u + \frac{r}{\sum_v |\phi_v|} |\phi_u|,
              \qquad r = \Delta - s \sum_v \phi_v .

    What the scaled scores lack, :math:`r`, is shared out by their size, so that a score of 0 stays
    0. Where that would turn scores over (:math:`|r|` above 0.9 of their absolute sum) it is shared
    out evenly: over the units whose score is not 0, or over all if there is none.

    Args:
        scores: :math:`\phi`, (N, U), higher is more important.
        difference: :math:`\Delta`, (N,).
        maskable: Units that take part, bool (N, U); the others get 0.
        scale: :math:`s`, (N,). Default: None, and so where it is not above 0: such that nothing is
            lacking unless the scores' sum is small beside their sizes, or of the other sign.

    Returns:
        Tensor (N, U).
    """
    scores = scores.masked_fill(~maskable, 0.0)
    # What is left of a sum that cancels out is rounding, and no effect.
    rounding = 4 * torch.finfo(scores.dtype).eps * scores.abs().amax(dim=1, keepdim=True)
    scores = scores.masked_fill(scores.abs() <= rounding, 0.0)
    total, size = scores.sum(dim=1), scores.abs().sum(dim=1)
    safe = torch.where(size > 0, size, 1.0)
    fitting = difference.abs() / torch.maximum(total.abs(), _LEAST_SUM * safe)
    scale = fitting if scale is None else torch.where(scale > 0, scale, fitting)
    rest = difference - scale * total
    by_size = scores.abs() / safe[:, None]
    counted = torch.where((size > 0)[:, None], scores != 0, maskable)
    evenly = counted.to(scores.dtype) / counted.sum(dim=1, keepdim=True).clamp(min=1)
    turns = rest.abs() > _MOST_STRETCH * scale * size
    share = torch.where(turns[:, None], evenly, by_size)
    return scale[:, None] * scores + rest[:, None] * share


def as_logits(effects: Tensor) -> Tensor:
    """Effects of units (N, U) as mask logits, relative to the largest of an example."""
    largest = effects.abs().amax(dim=1, keepdim=True)
    return NEUTRAL_LOGIT + LARGEST_LOGIT * effects / torch.where(largest > 0, largest, 1.0)
