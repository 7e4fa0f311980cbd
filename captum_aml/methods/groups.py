"""Groups of tokens that share a score, and scores of tokens made into those of their groups.

Groups (N, L) number the features of each example from 0, and are -1 where there is nothing to
explain. A call of a token method has them as its ``feature_mask``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from captum_aml._utils.checks import is_integral
from captum_aml.exceptions import InvalidInputError
from captum_aml.masking.call import Call


def groups_of(call: Call) -> Tensor:
    """The groups of a call's tokens (N, L)."""
    assert call.feature_mask is not None
    return call.feature_mask[0]


def maskable_of(call: Call) -> Tensor:
    """True where there is something to explain (N, L)."""
    return groups_of(call) >= 0


def count_groups(groups: Tensor) -> int:
    """The largest number of features that an example has."""
    return int(groups.max()) + 1 if groups.numel() else 0


def shares(groups: Tensor) -> bool:
    """Whether any feature has several tokens."""
    if not groups.numel():
        return False
    return bool((groups.amax(dim=1) + 1 < (groups >= 0).sum(dim=1)).any())


def group_sums(scores: Tensor, call: Call) -> Tensor:
    """Scores of tokens (N, L) as those of their groups: the sums over the groups' tokens."""
    groups = groups_of(call)
    if not shares(groups):
        return scores
    counted = torch.where(groups >= 0, scores, 0.0)
    places = groups.clamp(min=0)
    return torch.zeros_like(counted).scatter_add(1, places, counted).gather(1, places)


def group_norms(norms: Tensor, call: Call) -> Tensor:
    """Norms of tokens' vectors (N, L) as those of the vectors that groups make of them."""
    return group_sums(norms.square(), call).sqrt() if shares(groups_of(call)) else norms


def parse_groups(ids: Tensor, baselines: Tensor, feature_mask: Tensor | None) -> Tensor:
    """Checks ids, baselines and feature mask, and numbers the features (N, L).

    Raises:
        InvalidInputError: One has a wrong shape or dtype.
    """
    if ids.dim() != 2 or ids.is_floating_point():
        raise InvalidInputError(
            f"ids: expected integer token ids (N, L), got {ids.dtype} of shape {tuple(ids.shape)}"
        )
    if baselines.shape != ids.shape or baselines.dtype != ids.dtype:
        raise InvalidInputError(
            f"baselines: expected {ids.dtype} of shape {tuple(ids.shape)} as the ids, got "
            f"{baselines.dtype} of shape {tuple(baselines.shape)}"
        )
    if feature_mask is not None:
        if not isinstance(feature_mask, Tensor):
            raise InvalidInputError(
                "feature_mask: expected a tensor of integer group ids or None, got "
                f"{type(feature_mask).__name__}"
            )
        if feature_mask.shape != ids.shape or not is_integral(feature_mask):
            raise InvalidInputError(
                f"feature_mask: expected integer group ids of shape {tuple(ids.shape)} as the "
                f"ids, got {feature_mask.dtype} of shape {tuple(feature_mask.shape)}"
            )
    return number_groups(ids != baselines, feature_mask)


def number_groups(maskable: Tensor, feature_mask: Tensor | None) -> Tensor:
    """The feature of each token, numbered within each example from 0 in order of appearance.

    Args:
        maskable: True where there is something to explain (N, L).
        feature_mask (Tensor, optional): Group ids (N, L). None: every token is a feature.

    Returns:
        Numbers (N, L), -1 where there is nothing to explain.
    """
    if feature_mask is None:
        return torch.where(maskable, maskable.cumsum(dim=1) - 1, -1)
    groups = torch.full(maskable.shape, -1, device=maskable.device)
    for row, mask in enumerate(feature_mask.to(maskable.device)):
        places = maskable[row].nonzero().flatten()
        values, inverse = torch.unique(mask[places], return_inverse=True)
        order = torch.arange(len(places), device=places.device)
        first = torch.full_like(values, len(places), dtype=torch.long)
        first.scatter_reduce_(0, inverse, order, "amin")
        # The rank of a group's first token among the first tokens.
        groups[row, places] = first.argsort().argsort()[inverse]
    return groups


__all__ = [
    "count_groups",
    "group_norms",
    "group_sums",
    "groups_of",
    "maskable_of",
    "number_groups",
    "parse_groups",
    "shares",
]
