r"""Fits a masker over a data set: AdamW on the mean objective, in one process or several.

One optimizer step takes ``gradient_accumulation_steps`` batches in each of P processes and goes
along the gradient of the mean loss over all their examples. Process r takes batches r, r + P, ...
of the stream that all of them read; where the last step of an epoch has none left for a process, it
adds nothing.
"""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from captum_aml.exceptions import CaptumAMLError, InvalidInputError, NonFiniteError
from captum_aml.maskers import as_masker
from captum_aml.masking import GradientWatch, MaskingProblem
from captum_aml.objectives import Objective
from captum_aml.training.callbacks import FitCallback, FitState, ProgressBar
from captum_aml.training.feeding import (
    Feed,
    derived_seed,
    length_of,
    own_share,
    seed_torch,
    validation_steps,
)
from captum_aml.training.processes import Processes
from captum_aml.training.records import EpochRecord, FitSummary, Means, ValidationRecord
from captum_aml.training.run_folder import Progress, RunFolder, SavedRun
from captum_aml.training.schedules import learning_rates, needs_length
from captum_aml.training.settings import NOT_OF_THE_RUN, FitSettings, ValidationMetric
from captum_aml.training.trackers import TrackerLog
from captum_aml.training.updating import Updater, autocast
from captum_aml.typing import Batch, Batches

BuildProblem = Callable[[Batch], MaskingProblem]
#: A metric's values (N,) for a batch, with the masker as it is.
Measure = Callable[[nn.Module, Batch], Tensor]
_DISTRIBUTIONS = ("logits", "probabilities", "log_probabilities")


@dataclass(frozen=True)
class FitGoal:
    """What a masker is fitted for, and what is looked at in validation.

    Attributes:
        build: Turns a training batch into a masking problem.
        objective: The loss, averaged over examples.
        build_validation: The same as ``build`` for validation batches. Default: ``build``
        metric: What the best weights are chosen by; None for the validation loss.
        measure: The metric's values for a batch.
    """

    build: BuildProblem
    objective: Objective
    build_validation: BuildProblem | None = None
    metric: ValidationMetric | None = None
    measure: Measure | None = None


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
    seeded: give them back their state, as ``captum_aml._random.isolated_rng`` does.

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
        fit = _Fit(masker, goal, train_batches, val_batches, settings, processes, told)
        fit.open(stack, dict(identity or {}))
        return fit.run()


@torch.no_grad()
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
    means = _evaluate(masker, build, objective, batches, FitSettings())
    if means.count == 0:
        raise InvalidInputError("val_batches: expected at least one batch, got none")
    return means.result()


def _evaluate(
    masker: nn.Module,
    build: BuildProblem,
    objective: Objective,
    batches: Batches,
    settings: FitSettings,
) -> Means:
    masker.eval()
    means = Means()
    for problem in _problems(batches, build, masker, "val_batches"):
        device = problem.layout.live.device
        with autocast(settings, device):
            mask = torch.sigmoid(problem.propose(as_masker(masker)))
            means.add_terms(problem.evaluate(mask, objective, where="validation"))
    return means


@dataclass
class _StepResult:
    """What one process found in a step, before anything is added up."""

    n_batches: int
    means: Means = field(default_factory=Means)
    classes: list[int] = field(default_factory=list)
    error: str | None = None


class _Fit:
    """One fit, with what it needs and where it stands."""

    def __init__(
        self,
        masker: nn.Module,
        goal: FitGoal,
        train_batches: Batches,
        val_batches: Batches | None,
        settings: FitSettings,
        processes: Processes,
        callbacks: Sequence[FitCallback],
    ) -> None:
        self.masker = masker
        self.goal = goal
        self.val_batches = val_batches
        self.settings = settings
        self.processes = processes
        self.callbacks = callbacks if processes.is_main else ()
        self.updater = Updater(masker, settings)
        self.seed = settings.seed or 0
        self.feed = Feed(train_batches, seed=self.seed)
        self.batches_per_step = settings.gradient_accumulation_steps * processes.count
        counted = needs_length(settings) or settings.validations_per_epoch > 1
        self.n_batches = self.feed.count() if counted else length_of(train_batches)
        self.epoch_steps: int | None = None
        if self.n_batches is not None:
            self.epoch_steps = -(-self.n_batches // self.batches_per_step)
        self.n_steps = None if self.epoch_steps is None else self.epoch_steps * settings.epochs
        self.rate = learning_rates(settings, self.n_steps)
        self.validate_after = validation_steps(self.epoch_steps, settings.validations_per_epoch)
        self.progress = Progress()
        self.best: dict[str, Tensor] | None = None
        self.best_is_new = False
        self.folder: RunFolder | None = None
        self.configuration: dict[str, Any] = {}
        self.watch: GradientWatch | None = GradientWatch()
        self.terms: dict[str, float] = {}
        self.last_error = ""
        self.requests: list[str] = []
        self.generator_states: list[Tensor] = []
        self.restored_generators = False
        self.saved_at: tuple[int, int, str | None] | None = None
        self.started = time.perf_counter()

    # The folder

    def open(self, stack: ExitStack, identity: dict[str, Any]) -> None:
        """Opens the run's folder if there is one, and takes up the run that it holds."""
        if self.settings.checkpoint_dir is None:
            return
        settings = {k: v for k, v in self.settings.to_dict().items() if k not in NOT_OF_THE_RUN}
        self.configuration = {
            **identity,
            "settings": settings,
            "processes": self.processes.count,
            "frozen": _digest_of_frozen(self.masker),
            "batches": self.n_batches,
            "weights": {name: [str(t.dtype), list(t.shape)] for name, t in self._learned().items()},
        }
        saved: SavedRun | None = None
        error: CaptumAMLError | None = None
        if self.processes.is_main:
            try:
                self.folder = stack.enter_context(RunFolder(str(self.settings.checkpoint_dir)))
                saved = self.folder.load(self.configuration, resume=self.settings.resume)
            except CaptumAMLError as caught:
                error = caught
        # Every process hears of an error: one that waited for the others would wait for ever.
        saved, error = self.processes.from_main((saved, error))
        if error is not None:
            raise error
        if saved is not None:
            self._restore(saved)

    def _restore(self, saved: SavedRun) -> None:
        parts: dict[str, dict[str, Tensor]] = {"weights": {}, "optimizer": {}, "generator": {}}
        for name, tensor in saved.tensors.items():
            kind, key = name.split(".", 1)
            parts[kind][key] = tensor
        self.masker.load_state_dict(parts["weights"], strict=False)
        self.updater.restore(parts["optimizer"], saved.scale)
        self.progress = saved.progress
        self.best = saved.best
        self.generator_states = [parts["generator"][key] for key in sorted(parts["generator"])]
        self.restored_generators = True
        self.started -= saved.progress.seconds

    def _learned(self) -> dict[str, Tensor]:
        """What of the masker fitting may change: weights that learn, and buffers."""
        frozen = {name for name, p in self.masker.named_parameters() if not p.requires_grad}
        return {k: t for k, t in self.masker.state_dict().items() if k not in frozen}

    def _save(self) -> None:
        """Writes the run, unless it stands in the folder already."""
        progress = self.progress
        position = (progress.step, len(progress.history), progress.stopped)
        if self.settings.checkpoint_dir is None or self.saved_at == position:
            return
        self.saved_at = position
        progress.seconds = time.perf_counter() - self.started
        states = self.generator_states
        if progress.step_in_epoch == 0:
            states = [generator.get_state() for generator in self.feed.generators]
        if self.folder is not None:
            self.folder.save(
                self.configuration,
                progress,
                {
                    **{f"weights.{k}": t for k, t in self._learned().items()},
                    **{f"optimizer.{k}": t for k, t in self.updater.tensors().items()},
                    **{f"generator.{i:03d}": state for i, state in enumerate(states)},
                },
                self.updater.scale(),
                best=self.best if self.best_is_new else None,
            )
        self.best_is_new = False
        self._tell("on_checkpoint")

    # The loop

    def run(self) -> FitSummary:
        """Goes on from where the run stands to its end."""
        progress, settings = self.progress, self.settings
        if progress.stopped is None:
            self._tell("on_fit_start")
            while progress.epoch <= settings.epochs and self._goes_on():
                self._epoch()
            if not self.requests and progress.stopped is None:
                progress.stopped = "completed"
                self._save()
            self._tell("on_fit_end")
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
        return self.progress.stopped is None and not self.requests

    def _epoch(self) -> None:
        progress = self.progress
        generators = self.feed.generators
        if self.restored_generators:
            for generator, state in zip(generators, self.generator_states, strict=False):
                generator.set_state(state)
            self.restored_generators = False
        self.generator_states = [generator.get_state() for generator in generators]
        batches = self.feed.epoch(progress.epoch, skip=progress.batches)
        self._tell("on_epoch_start")
        every = self.settings.save_every
        while self._goes_on():
            if not self._step(batches):
                break
            progress.step_in_epoch += 1
            progress.step += 1
            self._tell("on_step_end")
            self._share_requests()
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
        if progress.skipped_in_epoch == progress.step_in_epoch:
            raise NonFiniteError(_too_many(self.last_error, "every step of an epoch"))
        self._validate()
        progress.history += self._partial_record()
        if progress.epoch == 1:
            self._warn_of_poor_data()
        progress.epoch += 1
        progress.step_in_epoch = progress.batches = progress.skipped_in_epoch = 0
        progress.means, progress.validations = Means(), []
        self._tell("on_epoch_end", epoch=progress.epoch - 1)
        self._share_requests()
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
        taken = list(islice(batches, self.batches_per_step))
        share = own_share(taken, index=processes.index, count=processes.count)
        seed_torch(derived_seed(self.seed, "step", progress.step, processes.index))
        found, gradients = self._gradients(share, first=progress.batches)
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

    def _gradients(
        self, batches: Sequence[Batch], *, first: int
    ) -> tuple[_StepResult, list[Tensor | None]]:
        """The gradients of the loss summed over the examples of batches."""
        parameters = self.updater.parameters
        sums: list[Tensor | None] = [None] * len(parameters)
        result = _StepResult(len(batches))
        self.masker.train()
        processes = self.processes
        numbers = range(first + processes.index, first + 10**9, processes.count)
        for number, batch in zip(numbers, batches, strict=False):
            try:
                problem = _problem(batch, self.goal.build, self.masker, "train_batches", number)
                for index, gradient in enumerate(self._backward(problem, result)):
                    before = sums[index]
                    if gradient is not None:
                        sums[index] = gradient if before is None else before + gradient
            except NonFiniteError as error:
                result.error = str(error)
                break
        return result, sums

    def _backward(self, problem: MaskingProblem, result: _StepResult) -> Sequence[Tensor | None]:
        step, watch = self.progress.step, self.watch
        with torch.enable_grad():
            with autocast(self.settings, problem.layout.live.device):
                mask = torch.sigmoid(problem.propose(as_masker(self.masker)))
                terms = problem.evaluate(
                    mask, self.goal.objective, where=f"training step {step}", watch=watch
                )
            loss = terms.total.sum()
            if not bool(torch.isfinite(loss)):
                raise NonFiniteError(
                    f"objective: expected a finite loss, got {loss.item()} at training step {step}"
                )
            # Only the masker's own gradients are computed: those of the explained model stay as
            # they are, whatever its parameters ask for.
            gradients: tuple[Tensor | None, ...] = (None,) * len(self.updater.parameters)
            if loss.requires_grad:
                gradients = torch.autograd.grad(
                    self.updater.scaled(loss), self.updater.parameters, allow_unused=True
                )
        if watch is not None:
            watch.check()
            self.watch = None
        result.means.add_terms(terms.detach())
        if problem.readout.kind in _DISTRIBUTIONS:
            result.classes = sorted({*result.classes, *problem.readout.explained.tolist()})
        return gradients

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
        own = _Share(self.val_batches, self.processes)
        build = goal.build_validation or goal.build
        with torch.no_grad():
            means = _evaluate(self.masker, build, goal.objective, own, self.settings)
        name = "total"
        if goal.metric is not None and goal.measure is not None:
            name = goal.metric.name
            for batch in own:
                values = goal.measure(self.masker, batch).double()
                there = ~values.isnan()
                means.add(name, float(values[there].sum()), int(there.sum()))
        together = Means()
        for part in self.processes.gather(means):
            together.merge(part)
        if together.count == 0:
            raise InvalidInputError("val_batches: expected at least one batch, got none")
        result = together.result()
        sign = -1 if goal.metric is not None and goal.metric.higher_is_better else 1
        value = result[name]
        improved = progress.best is None or sign * value < sign * progress.best.value
        record = ValidationRecord(progress.epoch, progress.step, result, value, improved)
        progress.validations.append(record)
        progress.since_best = 0 if improved else progress.since_best + 1
        if improved:
            progress.best = record
            self.best = {k: t.detach().clone() for k, t in self._learned().items()}
            self.best_is_new = True
        self._tell("on_validation_end")
        self._share_requests()
        patience = self.settings.patience
        if patience is not None and progress.since_best >= patience:
            progress.stopped = "patience"

    # Telling

    def _tell(self, event: str, epoch: int | None = None) -> None:
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

    def _share_requests(self) -> None:
        """Callbacks run on the main process; every process has to know that one asked to stop."""
        if self.processes.count > 1 and self.processes.any(bool(self.requests)):
            self.requests[:] = ["stop"]

    def _warn_of_poor_data(self) -> None:
        progress = self.progress
        if not self.processes.is_main:
            return
        if progress.means.count == 1:
            warnings.warn(
                "train_batches: expected several examples, got one; the masker knows no other",
                stacklevel=7,
            )
        elif len(progress.classes) == 1:
            warnings.warn(
                "train_batches: expected examples of several classes, but every one is explained "
                f"for class {progress.classes[0]}; the masker learns what speaks for this class "
                "only",
                stacklevel=7,
            )


class _Share:
    """Of batches those that are for this process."""

    def __init__(self, batches: Batches, processes: Processes) -> None:
        self._batches = batches
        self._processes = processes

    def __iter__(self) -> Iterator[Batch]:
        return islice(iter(self._batches), self._processes.index, None, self._processes.count)


def _digest_of_frozen(masker: nn.Module) -> str:
    """A checksum of the weights that do not learn, which a run does not keep."""
    digest = hashlib.sha256()
    for name, parameter in masker.named_parameters():
        if not parameter.requires_grad:
            content = parameter.detach().cpu().contiguous().flatten().view(torch.uint8)
            digest.update(name.encode())
            digest.update(content.numpy().tobytes())
    return digest.hexdigest()


def _too_many(error: str, what: str) -> str:
    return (
        f"{error}; {what} had a loss or gradient that is not finite. Try a lower learning_rate, "
        "mixed_precision='no', or a lower max_gradient_norm, and look for examples for which the "
        "explained model gives NaN"
    )


def _problems(
    batches: Batches, build: BuildProblem, masker: nn.Module, name: str
) -> Iterator[MaskingProblem]:
    for number, batch in enumerate(batches):
        yield _problem(batch, build, masker, name, number)


def _problem(
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


__all__ = ["BuildProblem", "FitGoal", "Measure", "evaluate_masker", "fit_masker"]
