"""Optimizes masks for given instances, all instances of a batch at once.

Every example has its own mask logits, its own loss and its own best step: Adam works on each logit
by itself and no term joins examples, so that an example's result does not depend on the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_aml.exceptions import InvalidInputError, NonFiniteError
from captum_aml.masking import GradientWatch, MaskingProblem
from captum_aml.objectives import Objective, Terms


@dataclass(frozen=True)
class TuningResult:
    """What tuning found for N examples.

    Attributes:
        mask: The best mask of each example, (N, U).
        terms: The objective's terms for that mask.
        best_step: The step each was found at, (N,): 0 is the mask that tuning started from.
    """

    mask: Tensor
    terms: Terms
    best_step: Tensor


def check_learning_rate(learning_rate: float) -> None:
    """Checks a learning rate.

    Raises:
        InvalidInputError: It is not a number above 0.
    """
    number = isinstance(learning_rate, int | float) and not isinstance(learning_rate, bool)
    if not number or not 0 < learning_rate < float("inf"):
        raise InvalidInputError(f"learning_rate: expected a number above 0, got {learning_rate!r}")


def tune(
    problem: MaskingProblem,
    objective: Objective,
    initial_logits: Tensor,
    *,
    n_steps: int,
    learning_rate: float,
    show_progress: bool = False,
) -> TuningResult:
    """Descends each example's objective by ``n_steps`` steps of Adam on its mask logits.

    The learning rate falls linearly to zero. A mask counts by the objective's loss on that very
    mask: each step's pass scores the mask it was given, and one pass without gradient scores the
    last, so that ``n_steps`` steps cost as many forward and backward passes and one forward more.

    Args:
        problem: What is masked and explained.
        objective: The loss.
        initial_logits: Where to start, (N, U).
        n_steps: The number of steps; 0 only scores the mask to start from.
        learning_rate: Adam's learning rate at the first step.
        show_progress: Whether to show a progress bar. Default: False

    Raises:
        NoGradientError: The forward function's result does not depend on the mask.
        NonFiniteError: The loss, or the forward function, gave NaN or an infinite value.
    """
    logits = initial_logits.detach().clone().requires_grad_(True)
    optimizer = torch.optim.Adam([logits], lr=learning_rate, betas=(0.9, 0.99))
    best: TuningResult | None = None
    watch = GradientWatch()
    with torch.enable_grad():
        for step in tqdm(range(n_steps), desc="Tuning", disable=not show_progress, leave=False):
            mask = torch.sigmoid(logits)
            terms = problem.evaluate(
                mask, objective, where=f"tuning step {step}", watch=watch if step == 0 else None
            )
            _check_terms(terms, step)
            best = _better(best, mask, terms, step)
            if terms.total.requires_grad:
                (logits.grad,) = torch.autograd.grad(terms.total.sum(), logits, allow_unused=True)
            watch.check()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * (1 - step / n_steps)
            optimizer.step()
    with torch.no_grad():
        mask = torch.sigmoid(logits)
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


__all__ = ["TuningResult", "check_learning_rate", "tune"]
