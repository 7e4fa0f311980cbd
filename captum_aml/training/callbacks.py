"""Callbacks of a fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tqdm.auto import tqdm

from captum_aml.exceptions import InvalidInputError
from captum_aml.training.records import EpochRecord, ValidationRecord


@dataclass(frozen=True)
class FitState:
    """The state of a fit.

    Attributes:
        epoch: The epoch that goes on, from 1.
        n_epochs: All epochs.
        step: Optimizer steps done, skipped ones included.
        n_steps: All steps, or None where their number is not known.
        terms: Means of the total and of each term over the examples of the last step; empty before
            the first one, and after one that was skipped.
        epoch_means: The same over the examples of the epoch so far.
        learning_rate: The learning rate of the next step.
        n_skipped_steps: Steps that were skipped.
        validation: The last validation, or None.
        best: The best validation so far, or None.
        history: The epochs that are done.
        folder: The folder that the run is kept in, or None.
    """

    epoch: int
    n_epochs: int
    step: int
    n_steps: int | None
    terms: Mapping[str, float]
    epoch_means: Mapping[str, float]
    learning_rate: float
    n_skipped_steps: int
    validation: ValidationRecord | None
    best: ValidationRecord | None
    history: Sequence[EpochRecord]
    folder: str | None
    _requests: list[str] = field(default_factory=list, repr=False, compare=False)

    def request_stop(self) -> None:
        """Ends the fit after the current step.

        The best weights so far are kept. A run with a folder is written and can be resumed.
        """
        self._requests.append("stop")


class FitCallback:
    """Methods that a fit calls as it goes on, on the main process only; override those of interest.

    An exception ends the fit, and leaves a run with a folder as it was last written.
    """

    def on_fit_start(self, state: FitState) -> None:
        """Before the first step, or the first one after resuming."""

    def on_epoch_start(self, state: FitState) -> None:
        """Before the first step of an epoch, or of what is left of it after resuming."""

    def on_step_end(self, state: FitState) -> None:
        """After every optimizer step, also a skipped one."""

    def on_validation_end(self, state: FitState) -> None:
        """After every validation, which is ``state.validation``."""

    def on_checkpoint(self, state: FitState) -> None:
        """After the run was written to its folder."""

    def on_epoch_end(self, state: FitState) -> None:
        """After an epoch, whose record is the last of ``state.history``."""

    def on_fit_end(self, state: FitState) -> None:
        """After the last step, unless an exception ended the fit."""


class ProgressBar(FitCallback):
    """A bar over all steps, with the means of the epoch's terms so far."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None

    def on_fit_start(self, state: FitState) -> None:
        """Shows the bar, from where a resumed run stands."""
        self._bar = tqdm(total=state.n_steps, initial=state.step, desc="Fitting", unit="step")

    def on_step_end(self, state: FitState) -> None:
        """Moves on."""
        if self._bar is None:
            return
        shown = {name: f"{value:.4f}" for name, value in state.epoch_means.items()}
        if state.n_skipped_steps:
            shown["skipped"] = str(state.n_skipped_steps)
        self._bar.set_postfix({"epoch": state.epoch, **shown}, refresh=False)
        self._bar.update()

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def check_callbacks(callbacks: object) -> tuple[FitCallback, ...]:
    """Checks what a caller gave as callbacks.

    Raises:
        InvalidInputError: They are no sequence of instances of :class:`FitCallback`.
    """
    given = callbacks if isinstance(callbacks, list | tuple) else (callbacks,)
    for callback in given:
        if not isinstance(callback, FitCallback):
            raise InvalidInputError(
                "callbacks: expected a sequence of instances of FitCallback, got "
                f"{getattr(callback, '__name__', type(callback).__name__)}"
            )
    return tuple(given)
