"""Losses of a fit, and what a masker is fitted for: batches become masking problems."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from captum_aml.exceptions import CaptumAMLError, InvalidInputError
from captum_aml.masking.problem import GradientWatch, MaskingProblem
from captum_aml.objectives import Objective, Terms
from captum_aml.training.regression import RegressionLoss
from captum_aml.training.settings import ValidationMetric
from captum_aml.typing import Batch

BuildProblem = Callable[[Batch], MaskingProblem]
#: A metric's values (N,) for a batch, with the masker as it is.
MetricValues = Callable[[nn.Module, Batch], Tensor]


@dataclass(frozen=True)
class FitGoal:
    """The goal of a fit: the loss, and the metric of validation.

    Attributes:
        build: Turns a training batch into a masking problem.
        loss: The published loss, an objective for the sigmoid of mask logits, or the regression;
            averaged over examples.
        build_validation: The same as ``build`` for validation batches. Default: ``build``
        metric: What the best weights are chosen by; None for the validation loss.
        metric_values: The metric's values for a batch.
    """

    build: BuildProblem
    loss: Objective | RegressionLoss
    build_validation: BuildProblem | None = None
    metric: ValidationMetric | None = None
    metric_values: MetricValues | None = None

    def terms(
        self,
        problem: MaskingProblem,
        logits: Tensor,
        *,
        where: str,
        watch: GradientWatch | None = None,
    ) -> Terms:
        """The loss's terms of each example.

        Args:
            problem: What is masked and explained.
            logits: Mask logits, (N, U).
            where: Names the pass in an error.
            watch: Notes whether a later backward pass comes through the explained model, as that of
                an objective has to.
        """
        if isinstance(self.loss, RegressionLoss):
            return self.loss(problem, logits, where=where)
        return problem.evaluate(torch.sigmoid(logits), self.loss, where=where, watch=watch)


def problem_of(
    batch: Batch, build: BuildProblem, masker: nn.Module, name: str, number: int
) -> MaskingProblem:
    """The masking problem of a batch; an error says which batch it is, counting from 0."""
    where = f"{name}, batch {number}"
    try:
        problem = build(batch)
    except CaptumAMLError as error:
        raise type(error)(f"{error} ({where})") from error
    except torch.cuda.OutOfMemoryError:
        raise
    except (TypeError, KeyError, IndexError, ValueError, RuntimeError) as error:
        raise InvalidInputError(
            f"forward_func: expected batches that hold what it needs, but it failed on {where}: "
            f"{type(error).__name__}: {error}"
        ) from error
    # The masker follows the data to its device.
    masker.to(problem.capture.features[0].device)
    return problem


def resolve_metric(select_by: str | ValidationMetric) -> ValidationMetric | None:
    """The metric that is meant; None for the validation loss.

    Raises:
        InvalidInputError: A name is unknown, or of a metric that cannot choose from batches; the
            message lists those that can.
    """
    if isinstance(select_by, ValidationMetric):
        return select_by
    if select_by == "loss":
        return None
    # Metrics are loaded where they are used: fitting by the loss needs none.
    from captum_aml.training.selection import named_metric

    return named_metric(select_by)
