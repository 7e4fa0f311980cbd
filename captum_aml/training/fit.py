r"""Fits a masker over a data set: AdamW on the mean objective, in one process or several.

One optimizer step takes ``gradient_accumulation_steps`` batches in each of P processes and goes
along the gradient of the mean loss over all their examples. Process r takes batches r, r + P, ...
of the stream that all of them read; where the last step of an epoch has none left for a process, it
adds nothing.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from captum_aml.exceptions import InvalidInputError, NonFiniteError
from captum_aml.masking.problem import GradientWatch
from captum_aml.training.callbacks import FitCallback, FitState, ProgressBar
from captum_aml.training.data import (
    Feed,
    check_unshared,
    derived_seed,
    length_of,
    seed_torch,
    validation_steps,
)
from captum_aml.training.losses import FitGoal
from captum_aml.training.optimizer import Updater, learning_rates, needs_length, step_gradients
from captum_aml.training.processes import Processes
from captum_aml.training.records import (
    EpochRecord,
    FitSummary,
    Means,
    Progress,
    ValidationRecord,
)
from captum_aml.training.regression import RegressionLoss
from captum_aml.training.resume import Keeper, learned
from captum_aml.training.settings import FitSettings
from captum_aml.training.validation import validation_means
from captum_aml.typing import Batch, Batches


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
    identity: Callable[[], Mapping[str, Any]] = dict,
) -> FitSummary:
    """Trains a masker in place so that its proposals minimize an objective.

    Torch's generators are seeded, and not given back their state. Beside the goal, and
    ``identity``, arguments and errors are those of :meth:`captum_aml.attr.AMLAttribution.fit`.
    ``identity`` gives what a resumed run has to have in common with the one in the folder beside
    the settings, as JSON values; it is called where there is a folder.
    """
    if val_batches is None:
        for name, given in (("patience", settings.patience), ("select_by", goal.metric)):
            if given is not None:
                raise InvalidInputError(f"{name}: expected val_batches with it, got None")
    processes = Processes()
    check_unshared("train_batches", train_batches, processes.count)
    if val_batches is not None:
        check_unshared("val_batches", val_batches, processes.count)
    with ExitStack() as stack:
        called = list(callbacks) if processes.is_main else []
        if processes.is_main and trackers:
            from captum_aml.training.trackers import TrackerLog

            log = TrackerLog(
                trackers,
                folder=None if settings.checkpoint_dir is None else str(settings.checkpoint_dir),
                config=settings.to_dict(),
            )
            stack.callback(log.close)
            called.append(log)
        if processes.is_main and show_progress:
            bar = ProgressBar()
            stack.callback(bar.close)
            called.append(bar)
        processes.share(masker)
        fit = FitLoop(masker, goal, train_batches, val_batches, settings, processes, called)
        fit.open(stack, identity)
        return fit.run()


@dataclass
class FitLoop:
    """One fit, with what it needs, as for :func:`fit_masker`, and where it stands."""

    masker: nn.Module
    goal: FitGoal
    train_batches: Batches
    val_batches: Batches | None
    settings: FitSettings
    processes: Processes
    callbacks: Sequence[FitCallback]

    def __post_init__(self) -> None:
        settings = self.settings
        self.updater = Updater(self.masker, settings)
        self.seed = settings.seed or 0
        self.feed = Feed(self.train_batches, seed=self.seed)
        self.batches_per_step = settings.gradient_accumulation_steps * self.processes.count
        counted = needs_length(settings) or settings.validations_per_epoch > 1
        self.n_batches = self.feed.count() if counted else length_of(self.train_batches)
        self.epoch_steps: int | None = None
        if self.n_batches is not None:
            self.epoch_steps = -(-self.n_batches // self.batches_per_step)
        self.n_steps = None if self.epoch_steps is None else self.epoch_steps * settings.epochs
        self.rate = learning_rates(settings, self.n_steps)
        self.validate_after = validation_steps(self.epoch_steps, settings.validations_per_epoch)
        self.progress = Progress()
        self.best: dict[str, Tensor] | None = None
        self.best_is_new = False
        self.terms: dict[str, float] = {}
        self.last_error = ""
        self.requests: list[str] = []
        self.keeper: Keeper | None = None
        # Of an objective, which is differentiated through the explained model.
        self.watch = None if isinstance(self.goal.loss, RegressionLoss) else GradientWatch()
        self.started = time.perf_counter()

    # The loop

    def run(self) -> FitSummary:
        """Goes on from where the run stands to its end."""
        progress, settings = self.progress, self.settings
        if progress.stopped is None:
            self._call("on_fit_start")
            while self._goes_on() and progress.epoch <= settings.epochs:
                self._epoch()
            if not self.requests and progress.stopped is None:
                if progress.skipped == progress.step:
                    raise NonFiniteError(_too_many(self.last_error, "every step"))
                progress.stopped = "completed"
                self._save()
            self._call("on_fit_end")
        if self.best is not None:
            self.masker.load_state_dict(self.best, strict=False)
        self.masker.eval()
        return FitSummary(
            history=[*progress.history, *self._partial_record()],
            n_steps=progress.step,
            n_skipped_steps=progress.skipped,
            best=progress.best,
            stopped=progress.stopped or "callback",
            seconds=time.perf_counter() - self.started,
        )

    def _goes_on(self) -> bool:
        # Callbacks run on the main process; every process has to know that one has to stop. This
        # is the only place where they exchange it, and all of them come by equally often.
        if self.processes.count > 1 and self.processes.any(bool(self.requests)):
            self.requests[:] = ["stop"]
        return self.progress.stopped is None and not self.requests

    def _epoch(self) -> None:
        progress = self.progress
        batches = self.feed.epoch(progress.epoch, skip=progress.batches)
        self._call("on_epoch_start")
        every = self.settings.save_every
        while self._goes_on():
            if not self._step(batches):
                break
            progress.step_in_epoch += 1
            progress.step += 1
            self._call("on_step_end")
            if progress.step_in_epoch in self.validate_after:
                self._validate()
                self._save()
            elif every is not None and progress.step % every == 0:
                self._save()
        if not self._goes_on():
            # In the middle of an epoch: a run that patience ended is over, one that a callback
            # ended can be resumed from here.
            self._save()
            return
        self._end_epoch()

    def _end_epoch(self) -> None:
        progress = self.progress
        if progress.step_in_epoch == 0:
            raise InvalidInputError("train_batches: expected at least one batch, got none")
        self._validate()
        progress.history += self._partial_record()
        if progress.epoch == 1:
            self._warn_of_poor_data()
        progress.epoch += 1
        progress.step_in_epoch = progress.batches = progress.skipped_in_epoch = 0
        progress.means, progress.validations = Means(), []
        self._call("on_epoch_end", epoch=progress.epoch - 1)
        self._save()

    def _partial_record(self) -> list[EpochRecord]:
        """A record of what was done of the epoch, if anything was."""
        progress = self.progress
        if progress.step_in_epoch == 0:
            return []
        validations = tuple(progress.validations)
        return [
            EpochRecord(
                epoch=progress.epoch,
                train=progress.means.result(),
                validation=validations[-1].means if validations else None,
                learning_rate=self.rate(progress.step),
                n_examples=progress.means.count,
                n_steps=progress.step_in_epoch,
                n_skipped_steps=progress.skipped_in_epoch,
                validations=validations,
            )
        ]

    # One step

    def _step(self, batches: Iterator[Batch]) -> bool:
        """Goes one step; False where there is no batch left for any process."""
        progress, processes = self.progress, self.processes
        taken = list(enumerate(islice(batches, self.batches_per_step), start=progress.batches))
        seed_torch(derived_seed(self.seed, "step", progress.step, processes.index))
        found, gradients = step_gradients(
            self.masker,
            self.goal,
            self.settings,
            self.updater,
            taken[processes.index :: processes.count],
            step=progress.step,
            # Once it was reached the model has a gradient.
            watch=None if self.watch is None or self.watch.reached else self.watch,
        )
        results = processes.gather(found)
        if not any(result.n_batches for result in results):
            return False
        progress.batches += len(taken)
        errors = [result.error for result in results if result.error is not None]
        means = Means()
        for result in results:
            means.merge(result.means)
        if not errors:
            total = processes.sum_gradients(gradients, self.updater.parameters)
            if not self.updater.step(total, means.count, self.rate(progress.step)):
                errors.append(
                    f"masker: expected a finite gradient at training step {progress.step}"
                )
                if self.updater.lowered_scale:
                    # Usual with fp16 until the scale fits; it cannot go on for ever.
                    progress.skipped_in_row -= 1
        if errors:
            self._skip(errors[0])
            return True
        progress.skipped_in_row = 0
        progress.means.merge(means)
        self.terms = means.result()
        for result in results:
            # Two are enough to know that there is more than one.
            new = [c for c in result.classes if c not in progress.classes]
            progress.classes = (progress.classes + new)[:2]
        return True

    def _skip(self, error: str) -> None:
        progress = self.progress
        progress.skipped += 1
        progress.skipped_in_epoch += 1
        progress.skipped_in_row += 1
        self.terms = {}
        self.last_error = error
        if progress.skipped_in_row > self.settings.max_skipped_steps:
            raise NonFiniteError(_too_many(error, f"{progress.skipped_in_row} steps in a row"))

    # Validation

    def _validate(self) -> None:
        if self.val_batches is None:
            return
        progress, goal = self.progress, self.goal
        seed_torch(derived_seed(self.seed, "validation", progress.step, self.processes.index))
        result = validation_means(
            self.masker,
            goal,
            self.val_batches,
            self.settings,
            self.processes,
            # Without the number of the process: all read the same batches.
            seed=derived_seed(self.seed, "validation batches", progress.step),
        )
        name = "total" if goal.metric is None else goal.metric.name
        sign = -1 if goal.metric is not None and goal.metric.higher_is_better else 1
        value = result[name]
        # What is not finite improves on nothing, and anything finite improves on it.
        improved = math.isfinite(value) and (
            progress.best is None
            or not math.isfinite(progress.best.value)
            or sign * value < sign * progress.best.value
        )
        record = ValidationRecord(progress.epoch, progress.step, result, value, improved)
        progress.validations.append(record)
        progress.since_best = 0 if improved else progress.since_best + 1
        if improved:
            progress.best = record
            self.best = {k: t.detach().clone() for k, t in learned(self.masker).items()}
            self.best_is_new = True
        self._call("on_validation_end")
        patience = self.settings.patience
        if patience is not None and progress.since_best >= patience:
            progress.stopped = "patience"

    # Keeping and reporting

    def open(self, stack: ExitStack, identity: Callable[[], Mapping[str, Any]]) -> None:
        """Opens the folder, if there is to be one, and takes up the run that it holds."""
        folder = self.settings.checkpoint_dir
        if folder is None:
            return
        path = Path(folder)
        self.keeper = Keeper(
            self.masker, self.updater, self.feed, self.settings, self.processes, path
        )
        saved = self.keeper.open(stack, identity(), self.n_batches)
        if saved is not None:
            self.progress, self.best = saved
            self.started -= self.progress.seconds

    def _save(self) -> None:
        if self.keeper is None:
            return
        self.progress.seconds = time.perf_counter() - self.started
        if self.keeper.save(self.progress, self.best if self.best_is_new else None):
            self.best_is_new = False
            self._call("on_checkpoint")

    def _call(self, event: str, epoch: int | None = None) -> None:
        if not self.callbacks:
            return
        progress = self.progress
        last = progress.validations or [
            v for record in progress.history[-1:] for v in record.validations
        ]
        folder = self.settings.checkpoint_dir
        state = FitState(
            epoch=min(progress.epoch, self.settings.epochs) if epoch is None else epoch,
            n_epochs=self.settings.epochs,
            step=progress.step,
            n_steps=self.n_steps,
            terms=dict(self.terms),
            epoch_means=progress.means.result(),
            learning_rate=self.rate(progress.step),
            n_skipped_steps=progress.skipped,
            validation=last[-1] if last else None,
            best=progress.best,
            history=tuple(progress.history),
            folder=None if folder is None else str(folder),
            _requests=self.requests,
        )
        for callback in self.callbacks:
            getattr(callback, event)(state)

    def _warn_of_poor_data(self) -> None:
        progress = self.progress
        if not self.processes.is_main:
            return
        if progress.means.count == 1:
            warnings.warn(
                "train_batches: expected several examples, got one; the masker knows no other",
                stacklevel=8,
            )
        elif len(progress.classes) == 1:
            warnings.warn(
                "train_batches: expected examples of several classes, but every one is explained "
                f"for class {progress.classes[0]}; the masker learns what supports this class "
                "only",
                stacklevel=8,
            )


def _too_many(error: str, what: str) -> str:
    return (
        f"{error}; {what} had a loss or gradient that is not finite. Try a lower learning_rate, "
        "mixed_precision='no', or a lower max_gradient_norm, and look for examples for which the "
        "explained model gives NaN"
    )
