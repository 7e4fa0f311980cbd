"""The protocol of objectives, their input and their terms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from captum_aml.exceptions import InvalidInputError

SizePenalty = Literal["bce", "l1"]


@dataclass(frozen=True)
class MaskedOutcome:
    """The model's outputs under a mask, for N examples, C outcomes and U mask units.

    Attributes:
        kept: Log-probabilities for ``x[m]``, (N, C), or None if the objective does not use them.
        complement: Log-probabilities for ``x[1 - m]``, (N, C), or None likewise.
        aim: The distribution that the kept tokens should preserve, (N, C).
        target_class: The target class, (N,).
        mask: Mask values in [0, 1], (N, U).
        maskable: Units that take part, bool (N, U).
    """

    kept: Tensor | None
    complement: Tensor | None
    aim: Tensor
    target_class: Tensor
    mask: Tensor
    maskable: Tensor


@dataclass(frozen=True)
class Terms:
    """An objective's value for each example, in nats.

    Attributes:
        total: The weighted sum, (N,).
        parts: Each term before its weight, by name, (N,).
    """

    total: Tensor
    parts: dict[str, Tensor]

    def detach(self) -> Terms:
        """The same values without their graph."""
        return Terms(self.total.detach(), {k: v.detach() for k, v in self.parts.items()})

    def where(self, better: Tensor, other: Terms) -> Terms:
        """These terms for the examples where ``better`` holds, the other's elsewhere."""
        return Terms(
            torch.where(better, self.total, other.total),
            {k: torch.where(better, v, other.parts[k]) for k, v in self.parts.items()},
        )

    @classmethod
    def concatenate(cls, terms: list[Terms]) -> Terms:
        """The terms of several batches as those of one."""
        return cls(
            torch.cat([t.total for t in terms]),
            {k: torch.cat([t.parts[k] for t in terms]) for k in terms[0].parts},
        )


class Objective(Protocol):
    """A loss over masked outputs, computed for each example on its own."""

    @property
    def uses_kept(self) -> bool:
        """Whether the pass with the kept tokens is needed."""

    @property
    def uses_complement(self) -> bool:
        """Whether the pass with the complement, ``x[1 - m]``, is needed."""

    def __call__(self, outcome: MaskedOutcome) -> Terms:
        """The terms for each example."""


@runtime_checkable
class LogOddsObjective(Objective, Protocol):
    """An objective whose gradient can be averaged over masks: ``captum_aml.tuning.gradient``."""

    def log_odds(self, log_p: Tensor, log_rest: Tensor) -> Tensor:
        """The number, (M,), that rises with the target class's probability p.

        Args:
            log_p: log p, (M,).
            log_rest: log(1 - p), (M,).
        """


def prediction_term(kept: Tensor, aim: Tensor) -> Tensor:
    r"""Soft cross-entropy :math:`-\sum_c aim_c \log p_c(x[m])`.

    Args:
        kept: Log-probabilities for ``x[m]``, (N, C).
        aim: Distribution to preserve, (N, C).

    Returns:
        Tensor (N,), in nats.
    """
    return -(aim * kept).sum(dim=1)


def inverse_term(complement: Tensor, target_class: Tensor, *, eps: float) -> Tensor:
    r"""Penalty where the complement supports the target: :math:`-\log(1 - p_c(x[1-m]) + \epsilon)`.

    ``1 - p_c`` is summed over the other outcomes' log-probabilities, so that the gradient does not
    vanish where ``p_c`` rounds to 1.

    Args:
        complement: Log-probabilities for ``x[1 - m]``, (N, C).
        target_class: The target class c, (N,).
        eps: The constant under the logarithm.

    Returns:
        Tensor (N,), in nats.
    """
    is_target = F.one_hot(target_class, complement.shape[1]).bool()
    others = complement.masked_fill(is_target, -math.inf).logsumexp(dim=1)
    return -torch.logaddexp(others, others.new_tensor(math.log(eps)))


def size_term(mask: Tensor, maskable: Tensor, penalty: SizePenalty) -> Tensor:
    r"""The mask's size: the mean over maskable units of :math:`-\log(1 - m)` or of :math:`m`.

    Args:
        mask: Mask values, (N, U).
        maskable: Units that take part, bool (N, U).
        penalty: ``bce``, the binary cross-entropy against an empty mask, or ``l1``.

    Returns:
        Tensor (N,); 0 for examples without a maskable unit.
    """
    if penalty == "bce":
        each = F.binary_cross_entropy(mask, torch.zeros_like(mask), reduction="none")
    else:
        each = mask
    return each.masked_fill(~maskable, 0.0).sum(dim=1) / maskable.sum(dim=1).clamp(min=1)


def check_objective(weights: Mapping[str, float], penalty: str, eps: float) -> None:
    """Checks the settings of an objective.

    Args:
        weights: The weights of the terms by name: finite, not negative, and not all zero.
        penalty: The name of a size penalty.
        eps: The constant under a logarithm, between 0 and 1.

    Raises:
        InvalidInputError: One is not as described; the message names it.
    """
    for name, weight in weights.items():
        if not (isinstance(weight, int | float) and math.isfinite(weight) and weight >= 0):
            raise InvalidInputError(f"{name}: expected a number of at least 0, got {weight!r}")
    if all(weight == 0 for weight in weights.values()):
        raise InvalidInputError(f"{', '.join(weights)}: expected one above 0, got all 0")
    if penalty not in get_args(SizePenalty):
        raise InvalidInputError(
            f"size_penalty: expected one of {get_args(SizePenalty)}, got {penalty!r}"
        )
    if not isinstance(eps, int | float) or not 0 < eps < 1:
        raise InvalidInputError(f"eps: expected a number between 0 and 1, got {eps!r}")
