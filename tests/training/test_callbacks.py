"""Callbacks, the progress bar and trackers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from accelerate.tracking import GeneralTracker

from captum_aml.exceptions import InvalidInputError
from captum_aml.training import FitCallback, FitState
from captum_aml.training.processes import Processes
from captum_aml.training.trackers import LOGS, PROJECT
from tests._helpers.fit_runs import batches_of, equal, planted, weights_of

EVENTS = (
    "on_fit_start",
    "on_epoch_start",
    "on_step_end",
    "on_validation_end",
    "on_checkpoint",
    "on_epoch_end",
    "on_fit_end",
)


class Recording(FitCallback):
    def __init__(self) -> None:
        self.calls: list[tuple[str, FitState]] = []
        for event in EVENTS:
            setattr(self, event, lambda state, event=event: self.calls.append((event, state)))


def fit(**settings: Any) -> Any:
    given = {"epochs": 2, "learning_rate": 1e-2, **settings}
    return planted().fit(batches_of(2, 4), batches_of(1, 4, seed=2), **given)


def test_events_come_in_order_and_say_where_the_fit_stands(tmp_path: Path) -> None:
    seen = Recording()
    aml = fit(callbacks=[seen], checkpoint_dir=tmp_path)
    epoch = [
        "on_epoch_start",
        "on_step_end",
        "on_step_end",
        "on_validation_end",
        "on_epoch_end",
        "on_checkpoint",
    ]
    names = [name for name, _ in seen.calls]
    # The last write says that the run is over.
    assert names == ["on_fit_start", *epoch, *epoch, "on_checkpoint", "on_fit_end"]
    steps = [state for name, state in seen.calls if name == "on_step_end"]
    assert [(s.epoch, s.step) for s in steps] == [(1, 1), (1, 2), (2, 3), (2, 4)]
    assert all((s.n_epochs, s.n_steps) == (2, 4) for s in steps)
    assert [s.learning_rate for s in steps] == pytest.approx([7.5e-3, 5e-3, 2.5e-3, 0.0])
    for s in steps:
        parts = [s.terms[name] for name in ("prediction", "inverse", "size")]
        assert sum(parts) == pytest.approx(s.terms["total"], rel=1e-6)
    # Equal batches: the epoch's mean is the mean of its steps'.
    for a, b in (steps[:2], steps[2:]):
        mean = (a.terms["total"] + b.terms["total"]) / 2
        assert b.epoch_means["total"] == pytest.approx(mean, rel=1e-6)
        assert mean == pytest.approx(aml.history_[b.epoch - 1].train["total"], rel=1e-6)
    ends = [state for name, state in seen.calls if name == "on_epoch_end"]
    assert [(s.epoch, len(s.history)) for s in ends] == [(1, 1), (2, 2)]
    assert list(ends[-1].history) == aml.history_
    validations = [state for name, state in seen.calls if name == "on_validation_end"]
    assert [s.validation for s in validations] == [r.validations[0] for r in aml.history_]
    assert all(s.folder == str(tmp_path) for _, s in seen.calls)


@pytest.mark.parametrize(
    ("event", "steps"), [("on_fit_start", 0), ("on_epoch_start", 0), ("on_checkpoint", 1)]
)
def test_every_event_can_stop_the_fit(tmp_path: Path, event: str, steps: int) -> None:
    callback = FitCallback()
    setattr(callback, event, lambda state: state.request_stop())
    stopped = fit(callbacks=(callback,), checkpoint_dir=tmp_path, save_every=1)
    assert stopped.fit_summary_.stopped == "callback"
    assert stopped.fit_summary_.n_steps == steps
    assert stopped.training_cost_.n_examples == 4 * steps
    resumed = fit(checkpoint_dir=tmp_path, save_every=1, resume=True)
    assert equal(weights_of(resumed), weights_of(fit()))


@pytest.mark.parametrize("event", [e for e in EVENTS if e not in ("on_fit_end", "on_checkpoint")])
def test_every_process_hears_of_a_stop(event: str) -> None:
    """Two loops in step, as two processes: the other one ends where the main one ends."""
    asked: list[bool] = []
    n_main = _run_as(0, event, asked)
    assert asked[-1] is True
    told = iter(asked)
    assert _run_as(1, None, [], told) == n_main
    assert next(told, None) is None  # as many questions as the main one asked


def _run_as(
    index: int, event: str | None, asked: list[bool], told: Iterator[bool] | None = None
) -> tuple[int, str]:
    """A fit as one of two processes, without what they compute for each other."""

    class Pretended(Processes):
        def __init__(self) -> None:
            self.count, self.index = 2, index

        def gather(self, value: Any) -> list[Any]:
            return [value]

        def from_main(self, value: Any) -> Any:
            return value

        def share(self, module: Any) -> None:
            pass

        def any(self, flag: bool) -> bool:
            asked.append(flag)
            return flag if told is None else next(told)

        def sum_gradients(self, gradients: Any, parameters: Any) -> Any:
            return list(gradients)

    callback = FitCallback()
    if event is not None:
        setattr(callback, event, lambda state: state.request_stop())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("captum_aml.training.fit.Processes", Pretended)
        aml = planted().fit(
            batches_of(4, 4), batches_of(2, 4, seed=2), epochs=2, callbacks=(callback,)
        )
    assert aml.fit_summary_ is not None
    return aml.fit_summary_.n_steps, aml.fit_summary_.stopped


def test_a_stop_keeps_the_best_weights_so_far() -> None:
    class Stop(FitCallback):
        def on_validation_end(self, state: FitState) -> None:
            state.request_stop()

    aml = fit(callbacks=(Stop(),))
    assert [r.epoch for r in aml.history_] == [1]
    assert aml.fit_summary_.stopped == "callback"
    assert aml.is_fitted


def test_what_a_callback_is_told_cannot_be_changed() -> None:
    class Meddling(FitCallback):
        def on_step_end(self, state: FitState) -> None:
            with pytest.raises(AttributeError):
                state.step = 7  # type: ignore[misc]

    fit(callbacks=(Meddling(),))


@pytest.mark.parametrize("given", [[FitCallback], [print], "text"])
def test_what_is_no_callback_is_named(given: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"^callbacks: expected .* FitCallback, got"):
        fit(callbacks=given)


def test_the_bar_shows_the_terms_and_only_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    fit()
    silent = capsys.readouterr()
    assert silent.out == silent.err == ""
    fit(show_progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    for fragment in ("Fitting", "4/4", "epoch=2", "total=", "prediction=", "inverse=", "size="):
        assert fragment in shown.err


# Trackers


def test_tensorboard_files_hold_every_step_and_validation(tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    seen = Recording()
    aml = fit(trackers=("tensorboard",), checkpoint_dir=tmp_path, callbacks=(seen,))
    events = event_accumulator.EventAccumulator(str(tmp_path / LOGS / PROJECT))
    events.Reload()
    steps = [state for name, state in seen.calls if name == "on_step_end"]
    for name in ("total", "prediction", "inverse", "size"):
        logged = events.Scalars(f"train/{name}")
        assert [e.step for e in logged] == [1, 2, 3, 4]
        assert [e.value for e in logged] == pytest.approx([s.terms[name] for s in steps])
    assert [e.value for e in events.Scalars("learning_rate")] == pytest.approx(
        [s.learning_rate for s in steps]
    )
    validations = [r.validation["total"] for r in aml.history_]
    assert [e.step for e in events.Scalars("validation/total")] == [2, 4]
    assert [e.value for e in events.Scalars("validation/total")] == pytest.approx(validations)
    epochs = [r.train["total"] for r in aml.history_]
    assert [e.value for e in events.Scalars("epoch/total")] == pytest.approx(epochs)


def test_a_tracker_of_ones_own_is_started_and_finished_also_after_an_error() -> None:
    class Mine(GeneralTracker):
        name = "mine"
        requires_logging_directory = False

        def __init__(self) -> None:
            super().__init__(_blank=True)
            self.said: list[Any] = []

        @property
        def tracker(self) -> Any:
            return self.said

        def store_init_configuration(self, values: dict[str, Any]) -> None:
            self.said.append(values["epochs"])

        def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
            self.said.append(step)

        def finish(self) -> None:
            self.said.append("finish")

    class Failing(FitCallback):
        def on_epoch_end(self, state: FitState) -> None:
            raise KeyboardInterrupt

    tracker = Mine()
    with pytest.raises(KeyboardInterrupt):
        fit(trackers=[tracker], callbacks=[Failing()])
    assert tracker.said == [2, 1, 2, 2, "finish"]


def test_trackers_that_do_not_fit_are_named() -> None:
    with pytest.raises(InvalidInputError, match=r"^trackers: .*tensorboard.* got 'tensorbord'"):
        fit(trackers=("tensorbord",))
    with pytest.raises(InvalidInputError, match=r"^trackers: 'tensorboard' .* checkpoint_dir"):
        fit(trackers=("tensorboard",))
