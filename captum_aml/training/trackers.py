"""Logs a fit to experiment trackers, such as TensorBoard, through Accelerate."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from captum_aml._utils.optional import require
from captum_aml.exceptions import InvalidInputError
from captum_aml.training.callbacks import FitCallback, FitState

#: Folders of a run's logs: ``<checkpoint_dir>/logs/captum_aml``.
LOGS = "logs"
PROJECT = "captum_aml"


class TrackerLog(FitCallback):
    """Logs terms and learning rate of every step, every validation and every epoch's means.

    Args:
        trackers: Names that Accelerate knows, or trackers of its class ``GeneralTracker``.
        folder: The run's folder, for trackers that write files.
        config: The settings to log.

    Raises:
        InvalidInputError: A name is unknown or its package is missing, or it needs a folder.
    """

    def __init__(
        self,
        trackers: Sequence[object],
        *,
        folder: str | None,
        config: Mapping[str, Any],
    ) -> None:
        self._trackers = [_tracker(each, folder) for each in trackers]
        self._started = False
        # Trackers take plain values only.
        self._config = {
            k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in config.items()
        }

    def on_fit_start(self, state: FitState) -> None:
        """Starts the trackers and logs the settings."""
        for tracker in self._trackers:
            tracker.start()
            tracker.store_init_configuration(self._config)
        self._started = True

    def on_step_end(self, state: FitState) -> None:
        """Logs the step's terms."""
        values = {f"train/{name}": value for name, value in state.terms.items()}
        values["learning_rate"] = state.learning_rate
        values["skipped_steps"] = state.n_skipped_steps
        self._log(values, state.step)

    def on_validation_end(self, state: FitState) -> None:
        """Logs the validation's means."""
        assert state.validation is not None
        means = state.validation.means
        self._log({f"validation/{name}": value for name, value in means.items()}, state.step)

    def on_epoch_end(self, state: FitState) -> None:
        """Logs the epoch's means."""
        means = state.history[-1].train
        self._log({f"epoch/{name}": value for name, value in means.items()}, state.step)

    def close(self) -> None:
        """Ends the trackers' runs."""
        for tracker in self._trackers if self._started else ():
            tracker.finish()

    def _log(self, values: dict[str, float], step: int) -> None:
        for tracker in self._trackers:
            tracker.log(values, step=step)


def _tracker(given: object, folder: str | None) -> Any:  # Accelerate's trackers have no common type
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers

    if isinstance(given, GeneralTracker):
        return given
    known = sorted(str(name) for name in LOGGER_TYPE_TO_CLASS)
    if not isinstance(given, str) or given not in known:
        raise InvalidInputError(
            f"trackers: expected names among {', '.join(known)}, or Accelerate trackers, "
            f"got {given!r}"
        )
    if given not in [str(name) for name in get_available_trackers()]:
        # The name of the package is that of the tracker but for a few.
        if given == "tensorboard":
            require("tensorboard", package="tensorboard", feature="logging", extra="train")
        raise InvalidInputError(f"trackers: the package of {given!r} is not installed")
    make = LOGGER_TYPE_TO_CLASS[given]
    if not make.requires_logging_directory:
        return make(PROJECT)
    if folder is None:
        raise InvalidInputError(
            f"trackers: {given!r} writes files and needs checkpoint_dir, got None"
        )
    return make(PROJECT, os.path.join(folder, LOGS))
