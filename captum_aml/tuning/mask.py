"""Tuning of masks: the descent of an objective, and Adam on each example's mask logits.

Adam works on each logit by itself and no term joins examples, so that an example's result does not
depend on the others. The best step is kept by the loss that is descended, never by a metric that is
reported afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_aml.exceptions import NonFiniteError
from captum_aml.masking.problem import GradientWatch, MaskingProblem
from captum_aml.objectives import Objective, Terms


@dataclass(frozen=True)
class TuningResult:
    """The result of tuning for N examples.

    Attributes:
        mask: The best mask of each example, (N, U).
        terms: The objective's terms for that mask.
        best_step: The step each was found at, (N,): 0 is the mask that tuning started from.
    """

    mask: Tensor
    terms: Terms
    best_step: Tensor


class Tunable(Protocol):
    """A source of masks while they are tuned: parameters of each example's own."""

    def propose(self) -> Tensor:
        """The masks now, (N, U)."""

    def differentiate(self, loss: Tensor) -> None:
        """Notes the gradient of the parameters that the last proposal came from.

        Args:
            loss: The sum of the examples' losses, which has a graph.
        """

    def step(self, learning_rate: float) -> None:
        """Changes the parameters by the gradient that was noted last."""


def descend(
    problem: MaskingProblem,
    objective: Objective,
    tunable: Tunable,
    *,
    n_steps: int,
    learning_rate: float,
    show_progress: bool = False,
) -> TuningResult:
    """Descends each example's objective by ``n_steps`` steps.

    The learning rate falls linearly to zero. A mask counts by the objective's loss on that very
    mask: each step's pass scores the mask it was given, and one pass without gradient scores the
    last, so that ``n_steps`` steps cost as many forward and backward passes and one forward more.

    Args:
        problem: What is masked and explained.
        objective: The loss.
        tunable: What is tuned: ``MaskLogits``, or ``MaskerWeights``.
        n_steps: The number of steps; 0 only scores the mask to start from.
        learning_rate: The learning rate at the first step.
        show_progress: Whether to show a progress bar. Default: False

    Raises:
        NoGradientError: The forward function's result does not depend on the mask.
        NonFiniteError: The loss, or the forward function, gave NaN or an infinite value.
    """
    best: TuningResult | None = None
    watch = GradientWatch()
    with torch.enable_grad():
        for step in tqdm(range(n_steps), desc="Tuning", disable=not show_progress, leave=False):
            mask = tunable.propose()
            terms = problem.evaluate(
                mask, objective, where=f"tuning step {step}", watch=watch if step == 0 else None
            )
            _check_terms(terms, step)
            best = _better(best, mask, terms, step)
            if terms.total.requires_grad:
                tunable.differentiate(terms.total.sum())
            watch.check()
            tunable.step(learning_rate * (1 - step / n_steps))
    with torch.no_grad():
        mask = tunable.propose()
        terms = problem.evaluate(mask, objective, where=f"tuning step {n_steps}")
    _check_terms(terms, n_steps)
    return _better(best, mask, terms, n_steps)


def _better(best: TuningResult | None, mask: Tensor, terms: Terms, step: int) -> TuningResult:
    mask, terms = mask.detach(), terms.detach()
    steps = torch.full(terms.total.shape, step, dtype=torch.long, device=mask.device)
    if best is None:
        return TuningResult(mask, terms, steps)
    better = terms.total < best.terms.total
    return TuningResult(
        torch.where(better.unsqueeze(1), mask, best.mask),
        terms.where(better, best.terms),
        torch.where(better, steps, best.best_step),
    )


def _check_terms(terms: Terms, step: int) -> None:
    finite = torch.isfinite(terms.total)
    if not bool(finite.all()):
        raise NonFiniteError(
            f"objective: expected a finite loss, got NaN or an infinite value at tuning step "
            f"{step} for examples {(~finite).nonzero().flatten().tolist()[:10]}"
        )


class MaskLogits:
    """Mask logits (N, U) that are tuned themselves, by Adam."""

    def __init__(self, initial: Tensor) -> None:
        self._logits = initial.detach().clone().requires_grad_(True)
        self._optimizer = torch.optim.Adam([self._logits], betas=(0.9, 0.99))

    def propose(self) -> Tensor:
        """The masks now, (N, U)."""
        return torch.sigmoid(self._logits)

    def differentiate(self, loss: Tensor) -> None:
        """See ``Tunable``."""
        (self._logits.grad,) = torch.autograd.grad(loss, self._logits, allow_unused=True)

    def step(self, learning_rate: float) -> None:
        """See ``Tunable``."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
