"""Tunes masks: Adam on each example's mask logits.

Adam works on each logit by itself and no term joins examples, so that an example's result does not
depend on the others.
"""

from __future__ import annotations

import torch
from torch import Tensor

from captum_aml.masking.problem import MaskingProblem
from captum_aml.objectives import Objective
from captum_aml.tuning._descent import TuningResult, descend


def tune_mask(
    problem: MaskingProblem,
    objective: Objective,
    initial_logits: Tensor,
    *,
    n_steps: int,
    learning_rate: float,
    show_progress: bool = False,
) -> TuningResult:
    """Descends each example's objective by ``n_steps`` steps of Adam on its mask logits.

    ``n_steps`` steps cost as many forward and backward passes of the explained model and one
    forward pass more.

    Args:
        problem: What is masked and explained.
        objective: The loss.
        initial_logits: Where to start, (N, U).
        n_steps: The number of steps; 0 only scores the mask to start from.
        learning_rate: Adam's learning rate at the first step; it falls linearly to zero.
        show_progress: Whether to show a progress bar. Default: False

    Raises:
        NoGradientError: The forward function's result does not depend on the mask.
        NonFiniteError: The loss, or the forward function, gave NaN or an infinite value.
    """
    return descend(
        problem,
        objective,
        _MaskLogits(initial_logits),
        n_steps=n_steps,
        learning_rate=learning_rate,
        show_progress=show_progress,
    )


class _MaskLogits:
    """Logits that are tuned themselves."""

    def __init__(self, initial: Tensor) -> None:
        self._logits = initial.detach().clone().requires_grad_(True)
        self._optimizer = torch.optim.Adam([self._logits], betas=(0.9, 0.99))

    def propose(self) -> Tensor:
        return torch.sigmoid(self._logits)

    def differentiate(self, loss: Tensor) -> None:
        (self._logits.grad,) = torch.autograd.grad(loss, self._logits, allow_unused=True)

    def step(self, learning_rate: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()


__all__ = ["tune_mask"]
