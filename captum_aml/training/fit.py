r"""Fits a masker over a data set: AdamW on the mean objective, in one process or several.

One optimizer step takes ``gradient_accumulation_steps`` batches in each of P processes and goes
along the gradient of the mean loss over all their examples. Process r takes batches r, r + P, ...
of the stream that all of them read; where the last step of an epoch has none left for a process, it
adds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from torch import nn

from captum_aml.exceptions import InvalidInputError
from captum_aml.objectives import Objective
from captum_aml.training.callbacks import FitCallback, ProgressBar
from captum_aml.training.feeding import check_unshared
from captum_aml.training.goal import BuildProblem, FitGoal
from captum_aml.training.loop import FitLoop
from captum_aml.training.losses import ObjectiveLoss
from captum_aml.training.processes import Processes
from captum_aml.training.records import FitSummary
from captum_aml.training.settings import FitSettings
from captum_aml.training.trackers import TrackerLog
from captum_aml.training.validating import sums_of_terms
from captum_aml.typing import Batches


def fit_masker(
    masker: nn.Module,
    goal: FitGoal,
    train_batches: Batches,
    val_batches: Batches | None = None,
    *,
    settings: FitSettings,
    callbacks: Sequence[FitCallback] = (),
    trackers: Sequence[object] = (),
    show_progress: bool = False,
    identity: Mapping[str, Any] | None = None,
) -> FitSummary:
    """Trains a masker in place so that its proposals minimize an objective.

    With validation batches, the weights of the best validation are kept. Torch's generators are
    seeded: give them back their state, as ``captum_aml._utils.random.isolated_rng`` does.

    Args:
        masker: The network to train; parameters that need no gradient stay as they are.
        goal: What it is fitted for.
        train_batches: Training batches, iterated once for each epoch.
        val_batches: Validation batches, or None.
        settings: How it is fitted.
        callbacks: Are told what happens.
        trackers: Names or trackers of Accelerate to log to.
        show_progress: Whether to show a progress bar.
        identity: What a resumed run has to have in common with the one in the folder beside the
            settings, as JSON values.

    Returns:
        How it went, with a record of each epoch.

    Raises:
        InvalidInputError: There is no batch, a batch does not fit the forward function, or a
            setting needs validation batches and there are none.
        CheckpointError: The folder holds another run, or is in use.
        NonFiniteError: Too many steps in a row had a loss or gradient that is not finite.
        NoGradientError: The forward function cannot be differentiated.
    """
    if val_batches is None:
        for name, asked in (("patience", settings.patience), ("select_by", goal.metric)):
            if asked is not None:
                raise InvalidInputError(f"{name}: expected val_batches with it, got None")
    processes = Processes()
    check_unshared("train_batches", train_batches, processes.count)
    if val_batches is not None:
        check_unshared("val_batches", val_batches, processes.count)
    with ExitStack() as stack:
        told = list(callbacks)
        if processes.is_main and trackers:
            log = TrackerLog(
                trackers,
                folder=None if settings.checkpoint_dir is None else str(settings.checkpoint_dir),
                config=settings.to_dict(),
            )
            stack.callback(log.close)
            told.append(log)
        if processes.is_main and show_progress:
            bar = ProgressBar()
            stack.callback(bar.close)
            told.append(bar)
        processes.share(masker)
        fit = FitLoop(masker, goal, train_batches, val_batches, settings, processes, told)
        fit.open(stack, identity or {})
        return fit.run()


def evaluate_masker(
    masker: nn.Module,
    build: BuildProblem,
    objective: Objective,
    batches: Batches,
) -> dict[str, float]:
    """Means over examples of the objective and its terms for a masker's own proposals.

    Raises:
        InvalidInputError: There is no batch.
    """
    means = sums_of_terms(masker, build, ObjectiveLoss(objective), batches, FitSettings())
    if means.count == 0:
        raise InvalidInputError("val_batches: expected at least one batch, got none")
    return means.result()


__all__ = ["evaluate_masker", "fit_masker"]
