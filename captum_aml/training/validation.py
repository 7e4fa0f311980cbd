"""Validation: the objective, and a metric, for the masks that the masker proposes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from itertools import islice

import torch
from torch import nn

from captum_aml.exceptions import InvalidInputError, NonFiniteError
from captum_aml.training.data import Feed
from captum_aml.training.losses import FitGoal, problem_of
from captum_aml.training.optimizer import autocast
from captum_aml.training.processes import Processes
from captum_aml.training.records import Means
from captum_aml.training.settings import FitSettings
from captum_aml.typing import Batch, Batches


def validation_means(
    masker: nn.Module,
    goal: FitGoal,
    batches: Batches,
    settings: FitSettings,
    processes: Processes,
    *,
    seed: int,
) -> dict[str, float]:
    """Means over the validation examples of all processes, each of which takes its own batches.

    Args:
        masker: The masker.
        goal: What it is fitted for.
        batches: Validation batches.
        settings: The settings.
        processes: The processes.
        seed: Seeds the order of the batches, for all processes alike: each reads them all.

    Returns:
        The total, each term, and the metric under its name. Where a value that is not finite ended
        it in one of the processes, what they are chosen by is NaN: a mean over the other examples
        could not be compared with that of another validation. A warning says what it was.

    Raises:
        InvalidInputError: There is no batch.
    """
    means, error = Means(), ""
    try:
        means = sums_of_terms(masker, goal, share(batches, processes, seed=seed), settings)
        if goal.metric is not None and goal.metric_values is not None:
            for batch in share(batches, processes, seed=seed):
                values = goal.metric_values(masker, batch).double()
                there = ~values.isnan()
                means.add(goal.metric.name, float(values[there].sum()), int(there.sum()))
    except NonFiniteError as caught:
        error = str(caught)
    together = Means()
    errors = []
    for part, problem in processes.gather((means, error)):
        together.merge(part)
        errors += [problem] if problem else []
    if errors:
        if processes.is_main:
            warnings.warn(
                f"val_batches: expected finite values; this one does not count ({errors[0]})",
                stacklevel=2,
            )
        names = ["total", *together.sums, *([] if goal.metric is None else [goal.metric.name])]
        return dict.fromkeys(names, math.nan)
    if together.count == 0:
        raise InvalidInputError("val_batches: expected at least one batch, got none")
    return together.result()


@torch.no_grad()
def sums_of_terms(
    masker: nn.Module, goal: FitGoal, batches: Iterable[Batch], settings: FitSettings
) -> Means:
    """Sums of a loss's terms for a masker's own proposals."""
    masker.eval()
    means = Means()
    build = goal.build_validation or goal.build
    for number, batch in enumerate(batches):
        problem = problem_of(batch, build, masker, "val_batches", number)
        with autocast(settings, problem.layout.maskable_units.device):
            logits = problem.propose(masker)
            means.add_terms(goal.terms(problem, logits, where="validation"))
    return means


def share(batches: Batches, processes: Processes, *, seed: int) -> Iterator[Batch]:
    """Of batches those that are for this process."""
    # What is drawn in between differs between the processes; what they read must not.
    drawn = Feed(batches, seed=seed).drawing(seed)
    return islice(drawn, processes.index, None, processes.count)
