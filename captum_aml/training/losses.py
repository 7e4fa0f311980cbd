"""What a masker is trained to minimize: an objective's value for the masks that it proposes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from captum_aml.masking.problem import GradientWatch, MaskingProblem
from captum_aml.objectives import Objective, Terms


class FitLoss(Protocol):
    """A loss for proposed mask logits, computed for each example on its own."""

    @property
    def differentiates_model(self) -> bool:
        """Whether its gradient comes through the explained model."""

    def __call__(
        self,
        problem: MaskingProblem,
        logits: Tensor,
        *,
        where: str,
        watch: GradientWatch | None = None,
    ) -> Terms:
        """The terms of each example.

        Args:
            problem: What is masked and explained.
            logits: Mask logits, (N, U).
            where: Names the pass in an error.
            watch: Notes whether a later backward pass comes through the explained model.
        """


@dataclass(frozen=True)
class ObjectiveLoss:
    """The published one: the objective's own terms for the sigmoid of the logits.

    Attributes:
        objective: The objective.
    """

    objective: Objective
    differentiates_model: bool = True

    def __call__(
        self,
        problem: MaskingProblem,
        logits: Tensor,
        *,
        where: str,
        watch: GradientWatch | None = None,
    ) -> Terms:
        """The objective's terms."""
        return problem.evaluate(torch.sigmoid(logits), self.objective, where=where, watch=watch)


__all__ = ["FitLoss", "ObjectiveLoss"]
