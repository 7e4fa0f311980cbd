"""The learning rate of every step, by the schedules of transformers."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from captum_aml.training.settings import FitSettings


def needs_length(settings: FitSettings) -> bool:
    """Whether the schedule depends on the number of all steps."""
    if settings.scheduler in ("constant_with_warmup", "inverse_sqrt"):
        return settings.warmup_ratio > 0
    return settings.scheduler != "constant"


def learning_rates(settings: FitSettings, n_steps: int | None) -> Callable[[int], float]:
    """The learning rate as a function of the number of steps done.

    Args:
        settings: The schedule and its highest rate.
        n_steps: All steps; None where the schedule does not need them.
    """
    # Imported here: importing transformers takes seconds.
    from transformers import get_scheduler

    assert n_steps is not None or not needs_length(settings)
    total = n_steps or 0
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=settings.learning_rate)
    schedule = get_scheduler(
        settings.scheduler,
        optimizer,
        num_warmup_steps=math.ceil(total * settings.warmup_ratio),
        num_training_steps=total,
    )
    # They are functions of the step; as such they need no state that a resumed run would restore.
    (factor,) = schedule.lr_lambdas
    return lambda step: settings.learning_rate * float(factor(step))


__all__ = ["learning_rates", "needs_length"]
