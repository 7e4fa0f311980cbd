"""The gradients that the batches of one step lead to, in one process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from captum_aml.exceptions import NonFiniteError
from captum_aml.maskers import as_masker
from captum_aml.masking.problem import GradientWatch, MaskingProblem
from captum_aml.training.goal import FitGoal, problem_of
from captum_aml.training.processes import Processes
from captum_aml.training.records import Means
from captum_aml.training.settings import FitSettings
from captum_aml.training.updating import Updater, autocast
from captum_aml.typing import Batch

_DISTRIBUTIONS = ("logits", "probabilities", "log_probabilities")


@dataclass
class StepResult:
    """What one process found in a step, before anything is added up.

    Attributes:
        n_batches: Its batches.
        means: Sums of the terms.
        classes: The explained classes.
        error: What was not finite, or None.
    """

    n_batches: int
    means: Means = field(default_factory=Means)
    classes: list[int] = field(default_factory=list)
    error: str | None = None


class StepGradients:
    """Computes them; the first time it checks that the explained model has a gradient at all.

    Args:
        masker: The masker.
        goal: What it is fitted for.
        settings: The settings.
        updater: Knows the parameters and the scale of the loss.
        processes: The processes.
    """

    def __init__(
        self,
        masker: nn.Module,
        goal: FitGoal,
        settings: FitSettings,
        updater: Updater,
        processes: Processes,
    ) -> None:
        self._masker = masker
        self._goal = goal
        self._settings = settings
        self._updater = updater
        self._processes = processes
        self._watch = GradientWatch() if goal.loss.differentiates_model else None

    def __call__(
        self, batches: Sequence[Batch], *, first: int, step: int
    ) -> tuple[StepResult, list[Tensor | None]]:
        """What the batches of one process in one step lead to.

        Args:
            batches: This process's batches.
            first: The number of the step's first batch, over all processes.
            step: The number of the step.

        Returns:
            Sums of the terms, and for each parameter the gradient of the loss summed over the
            examples. A value that is not finite ends it, and is in the result's ``error``.
        """
        parameters = self._updater.parameters
        sums: list[Tensor | None] = [None] * len(parameters)
        result = StepResult(len(batches))
        self._masker.train()
        processes = self._processes
        numbers = range(first + processes.index, first + 10**9, processes.count)
        for number, batch in zip(numbers, batches, strict=False):
            try:
                problem = problem_of(batch, self._goal.build, self._masker, "train_batches", number)
                for index, gradient in enumerate(self._backward(problem, result, step)):
                    before = sums[index]
                    if gradient is not None:
                        sums[index] = gradient if before is None else before + gradient
            except NonFiniteError as error:
                result.error = str(error)
                break
        return result, sums

    def _backward(
        self, problem: MaskingProblem, result: StepResult, step: int
    ) -> Sequence[Tensor | None]:
        watch = self._watch
        with torch.enable_grad():
            with autocast(self._settings, problem.layout.live.device):
                logits = problem.propose(as_masker(self._masker))
                terms = self._goal.loss(problem, logits, where=f"training step {step}", watch=watch)
            loss = terms.total.sum()
            if not bool(torch.isfinite(loss)):
                raise NonFiniteError(
                    f"objective: expected a finite loss, got {loss.item()} at training step {step}"
                )
            # Only the masker's own gradients are computed: those of the explained model stay as
            # they are, whatever its parameters ask for.
            gradients: tuple[Tensor | None, ...] = (None,) * len(self._updater.parameters)
            if loss.requires_grad:
                gradients = torch.autograd.grad(
                    self._updater.scaled(loss), self._updater.parameters, allow_unused=True
                )
        if watch is not None:
            watch.check()
            self._watch = None
        result.means.add_terms(terms.detach())
        if problem.readout.kind in _DISTRIBUTIONS:
            result.classes = sorted({*result.classes, *problem.readout.explained.tolist()})
        return gradients


__all__ = ["StepGradients", "StepResult"]
