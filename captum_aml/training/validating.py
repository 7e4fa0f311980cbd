"""Validation: the objective, and a metric, for the masks that the masker proposes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import torch
from torch import nn

from captum_aml.exceptions import InvalidInputError
from captum_aml.maskers import as_masker
from captum_aml.objectives import Objective
from captum_aml.training.goal import BuildProblem, FitGoal, problems_of
from captum_aml.training.processes import Processes
from captum_aml.training.records import Means
from captum_aml.training.settings import FitSettings
from captum_aml.training.updating import autocast
from captum_aml.typing import Batch, Batches


def validation_means(
    masker: nn.Module,
    goal: FitGoal,
    batches: Batches,
    settings: FitSettings,
    processes: Processes,
) -> dict[str, float]:
    """Means over the validation examples of all processes, each of which takes its own batches.

    Returns:
        The total, each term, and the metric under its name.

    Raises:
        InvalidInputError: There is no batch.
    """
    own = _Share(batches, processes)
    means = sums_of_terms(
        masker, goal.build_validation or goal.build, goal.objective, own, settings
    )
    if goal.metric is not None and goal.measure is not None:
        for batch in own:
            values = goal.measure(masker, batch).double()
            there = ~values.isnan()
            means.add(goal.metric.name, float(values[there].sum()), int(there.sum()))
    together = Means()
    for part in processes.gather(means):
        together.merge(part)
    if together.count == 0:
        raise InvalidInputError("val_batches: expected at least one batch, got none")
    return together.result()


@torch.no_grad()
def sums_of_terms(
    masker: nn.Module,
    build: BuildProblem,
    objective: Objective,
    batches: Batches,
    settings: FitSettings,
) -> Means:
    """Sums of an objective's terms for a masker's own proposals."""
    masker.eval()
    means = Means()
    for problem in problems_of(batches, build, masker, "val_batches"):
        device = problem.layout.live.device
        with autocast(settings, device):
            mask = torch.sigmoid(problem.propose(as_masker(masker)))
            means.add_terms(problem.evaluate(mask, objective, where="validation"))
    return means


class _Share:
    """Of batches those that are for this process."""

    def __init__(self, batches: Batches, processes: Processes) -> None:
        self._batches = batches
        self._processes = processes

    def __iter__(self) -> Iterator[Batch]:
        return islice(iter(self._batches), self._processes.index, None, self._processes.count)


__all__ = ["sums_of_terms", "validation_means"]
