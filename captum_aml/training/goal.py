"""What a masker is fitted for, and batches as masking problems."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from captum_aml.exceptions import CaptumAMLError, InvalidInputError
from captum_aml.masking.problem import MaskingProblem
from captum_aml.training.losses import FitLoss
from captum_aml.training.settings import ValidationMetric
from captum_aml.typing import Batch, Batches

BuildProblem = Callable[[Batch], MaskingProblem]
#: A metric's values (N,) for a batch, with the masker as it is.
Measure = Callable[[nn.Module, Batch], Tensor]


@dataclass(frozen=True)
class FitGoal:
    """What a masker is fitted for, and what is looked at in validation.

    Attributes:
        build: Turns a training batch into a masking problem.
        loss: The loss, averaged over examples.
        build_validation: The same as ``build`` for validation batches. Default: ``build``
        metric: What the best weights are chosen by; None for the validation loss.
        measure: The metric's values for a batch.
    """

    build: BuildProblem
    loss: FitLoss
    build_validation: BuildProblem | None = None
    metric: ValidationMetric | None = None
    measure: Measure | None = None


def problems_of(
    batches: Batches, build: BuildProblem, masker: nn.Module, name: str
) -> Iterator[MaskingProblem]:
    """The masking problems of batches, one after the other."""
    for number, batch in enumerate(batches):
        yield problem_of(batch, build, masker, name, number)


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


__all__ = ["BuildProblem", "FitGoal", "Measure", "problem_of", "problems_of", "resolve_metric"]
