"""A run that was interrupted, at any moment and in any way, ends as one that was not."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from captum_aml import AMLObjective
from captum_aml._utils import files
from captum_aml._utils.files import atomic_file
from captum_aml.exceptions import CheckpointError, InvalidInputError
from captum_aml.training import FitCallback, FitState
from tests._helpers import processes
from tests._helpers.fit_runs import (
    Stream,
    batches_of,
    equal,
    planted,
    random_attribution,
    random_batches,
    run,
    run_until_killed,
    weights_of,
)

N_STEPS = 6


class InterruptedFitError(Exception):
    pass


class Interrupt(FitCallback):
    """Raises at an event of a step."""

    def __init__(self, event: str, step: int) -> None:
        setattr(self, event, self._at)
        self.step = step

    def _at(self, state: FitState) -> None:
        if state.step == self.step:
            raise InterruptedFitError


@pytest.fixture(scope="module")
def whole() -> tuple[dict[str, Tensor], Any]:
    """What a run without a folder and without interruption gives."""
    aml = run(None)
    return weights_of(aml), aml.history_


def test_keeping_a_run_changes_nothing(whole: Any, tmp_path: Path) -> None:
    aml = run(tmp_path, save_every=1)
    assert equal(weights_of(aml), whole[0])
    assert aml.history_ == whole[1]
    assert [r.n_steps for r in whole[1]] == [3, 3]
    assert [len(r.validations) for r in whole[1]] == [2, 2]


@pytest.mark.parametrize(
    ("event", "step"),
    [*(("on_step_end", step) for step in range(1, N_STEPS + 1)), ("on_checkpoint", 3)],
)
def test_resuming_after_every_step_is_bit_for_bit(
    whole: Any, tmp_path: Path, event: str, step: int
) -> None:
    with pytest.raises(InterruptedFitError):
        run(tmp_path, callbacks=(Interrupt(event, step),), save_every=1)
    steps: list[int] = []

    class Counting(FitCallback):
        def on_step_end(self, state: FitState) -> None:
            steps.append(state.step)

    aml = run(tmp_path, callbacks=(Counting(),), save_every=1, resume=True)
    # It did go on, from the last write, rather than begin again.
    assert steps == list(range(step + (event == "on_checkpoint"), N_STEPS + 1))
    assert equal(weights_of(aml), whole[0])
    assert aml.history_ == whole[1]


def test_the_default_writes_are_at_validations_and_epochs(whole: Any, tmp_path: Path) -> None:
    written: list[int] = []

    class Noting(FitCallback):
        def on_checkpoint(self, state: FitState) -> None:
            written.append(state.step)

    with pytest.raises(InterruptedFitError):
        run(tmp_path, callbacks=(Noting(), Interrupt("on_step_end", 5)))
    assert written == [2, 3]
    assert equal(weights_of(run(tmp_path, resume=True)), whole[0])


def test_a_loader_without_a_generator_resumes_as_well(tmp_path: Path) -> None:
    expected = weights_of(run(None, generator=False))
    with pytest.raises(InterruptedFitError):
        run(tmp_path, callbacks=(Interrupt("on_step_end", 4),), save_every=1, generator=False)
    torch.rand(5)
    assert equal(weights_of(run(tmp_path, resume=True, generator=False)), expected)


@pytest.mark.parametrize("broken", [1, 4, 6])
def test_an_interruption_while_writing_leaves_the_position_before(
    whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: int
) -> None:
    """The n-th file that is written is cut short, whichever it is."""
    count = 0

    def breaking(path: Any) -> Any:
        nonlocal count
        count += 1
        if count == broken:
            (Path(path).parent / f".{Path(path).name}.0.part").write_bytes(b"half of i")
            raise KeyboardInterrupt
        return atomic_file(path)

    monkeypatch.setattr(files, "atomic_file", breaking)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, save_every=1)
    monkeypatch.undo()
    assert equal(weights_of(run(tmp_path, save_every=1, resume=True)), whole[0])
    kinds = sorted(p.name.split("-")[0] for p in tmp_path.iterdir() if p.name != ".lock")
    assert kinds == ["best", "run.json", "state"]


def test_a_run_that_was_killed_resumes_bit_for_bit(whole: Any, tmp_path: Path) -> None:
    killed = processes.start(run_until_killed, tmp_path, 4)
    assert processes.exit_code(killed) == -signal.SIGKILL
    assert json.loads((tmp_path / "run.json").read_text())["progress"]["step"] == 3
    aml = run(tmp_path, save_every=1, resume=True)
    assert equal(weights_of(aml), whole[0])
    assert aml.history_ == whole[1]


def test_a_finished_run_is_read_and_not_fitted_again(whole: Any, tmp_path: Path) -> None:
    first = run(tmp_path)

    class Never(FitCallback):
        def on_fit_start(self, state: FitState) -> None:
            raise AssertionError

        on_step_end = on_fit_start

    again = run(tmp_path, resume=True, callbacks=(Never(),))
    assert equal(weights_of(again), whole[0])
    assert again.history_ == first.history_
    assert again.is_fitted
    assert again.fingerprint_ == first.fingerprint_
    ids = torch.randint(3, 30, (2, 6))
    assert torch.equal(again.attribute(ids), first.attribute(ids))


def test_resuming_an_empty_folder_begins(whole: Any, tmp_path: Path) -> None:
    assert equal(weights_of(run(tmp_path / "new", resume=True)), whole[0])


def test_a_stop_that_a_callback_asks_for_can_be_resumed(whole: Any, tmp_path: Path) -> None:
    class Stop(FitCallback):
        def on_step_end(self, state: FitState) -> None:
            if state.step == 4:
                state.request_stop()

    aml = run(tmp_path, callbacks=(Stop(),))
    assert aml.fit_summary_ is not None
    assert aml.fit_summary_.stopped == "callback"
    assert aml.fit_summary_.n_steps == 4
    assert [r.n_steps for r in aml.history_ or []] == [3, 1]
    resumed = run(tmp_path, resume=True)
    assert equal(weights_of(resumed), whole[0])
    assert resumed.history_ == whole[1]


def test_streams_and_epochs_that_are_told_their_number_resume(tmp_path: Path) -> None:
    class Sampler(Stream):
        """In an order of the epoch's own, which it is told."""

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

        def __iter__(self) -> Iterator[Tensor]:
            yield from self.batches[self.epoch :] + self.batches[: self.epoch]

    def fit(folder: Path | None, **settings: Any) -> dict[str, Tensor]:
        data = Sampler(batches_of(3, 4))
        aml = planted().fit(
            data,
            epochs=2,
            learning_rate=1e-2,
            scheduler="constant",
            checkpoint_dir=folder,
            **settings,
        )
        assert data.epoch == 1
        return weights_of(aml)

    expected = fit(None)
    rotated = [batches_of(3, 4), [*batches_of(3, 4)[1:], batches_of(3, 4)[0]]]
    by_hand = planted().fit(
        [b for epoch in rotated for b in epoch],
        epochs=1,
        learning_rate=1e-2,
        scheduler="constant",
    )
    assert equal(weights_of(by_hand), expected)
    with pytest.raises(InterruptedFitError):
        fit(tmp_path, callbacks=(Interrupt("on_step_end", 5),), save_every=1)
    assert equal(fit(tmp_path, save_every=1, resume=True), expected)


# What is refused


def test_a_folder_with_a_run_is_not_overwritten(tmp_path: Path) -> None:
    run(tmp_path)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(CheckpointError, match=r"^checkpoint_dir: .* holds a run .* resume=True"):
        run(tmp_path)
    assert (tmp_path / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"learning_rate": 2e-3}, r"settings\.learning_rate is 0\.001 there and 0\.002 here"),
        ({"epochs": 3}, r"settings\.epochs is 2 there and 3 here"),
        ({"seed": 6}, r"settings\.seed is 5 there and 6 here"),
    ],
)
def test_a_run_of_other_settings_is_refused(
    tmp_path: Path, settings: dict[str, Any], named: str
) -> None:
    with pytest.raises(InterruptedFitError):
        run(tmp_path, callbacks=(Interrupt("on_step_end", 4),))
    with pytest.raises(CheckpointError, match=named):
        run(tmp_path, resume=True, **settings)


def test_a_run_of_another_objective_masker_or_data_is_refused(tmp_path: Path) -> None:
    def fit(**settings: Any) -> None:
        data = settings.pop("data", batches_of(2, 4))
        planted(**settings).fit(data, epochs=1, checkpoint_dir=tmp_path, resume=True)

    fit()
    with pytest.raises(CheckpointError, match=r"objective\.size_weight is 1\.0 there and 2\.0"):
        fit(objective=AMLObjective(size_weight=2.0))
    with pytest.raises(CheckpointError, match=r"batches is 2 there and 3 here"):
        fit(data=batches_of(3, 4))
    with pytest.raises(CheckpointError, match=r"masker\.config\.hidden_size is 16 there and 64"):
        fit(masker=None)
    with pytest.raises(
        CheckpointError, match=r"masker\.type is 'embedding' there and 'transformer'"
    ):
        random_attribution().fit(
            random_batches(True), epochs=1, checkpoint_dir=tmp_path, resume=True
        )
    fit()  # the run itself is still welcome


def test_another_frozen_part_is_another_run(tmp_path: Path) -> None:
    def fit(shift: float) -> None:
        aml = planted()
        assert aml.masker is not None
        head = aml.masker.heads[0]  # type: ignore[index]
        with torch.no_grad():
            head.project.weight += shift
        head.project.requires_grad_(False)
        aml.fit(batches_of(2, 4), epochs=1, checkpoint_dir=tmp_path, resume=True)

    fit(0.0)
    fit(0.0)
    with pytest.raises(CheckpointError, match="frozen"):
        fit(0.1)


def test_two_fits_do_not_write_one_folder(tmp_path: Path) -> None:
    other: list[str] = []

    class Second(FitCallback):
        def on_step_end(self, state: FitState) -> None:
            with pytest.raises(CheckpointError) as caught:
                planted().fit(batches_of(1, 4), epochs=1, checkpoint_dir=tmp_path, resume=True)
            other.append(str(caught.value))

    def fit(**settings: Any) -> None:
        planted().fit(batches_of(1, 4), epochs=1, checkpoint_dir=tmp_path, **settings)

    fit(callbacks=(Second(),))
    assert other
    assert other[0].startswith("checkpoint_dir: another process writes")
    fit(resume=True)  # the lock went with the fit that held it


@pytest.mark.parametrize("damage", ["truncate", "edit", "state", "missing", "format"])
def test_a_damaged_run_is_refused(tmp_path: Path, damage: str) -> None:
    planted().fit(batches_of(2, 4), batches_of(1, 4), epochs=1, checkpoint_dir=tmp_path)
    file = tmp_path / "run.json"
    (state,) = tmp_path.glob("state-*")
    if damage == "truncate":
        file.write_bytes(file.read_bytes()[:-20])
    elif damage == "edit":
        file.write_text(file.read_text().replace('"step": 2', '"step": 1'))
    elif damage == "format":
        file.write_text("{}")
    elif damage == "state":
        state.write_bytes(state.read_bytes()[:-1])
    else:
        state.unlink()
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        planted().fit(
            batches_of(2, 4), batches_of(1, 4), epochs=1, checkpoint_dir=tmp_path, resume=True
        )


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"^checkpoint_dir: expected a folder"):
        planted().fit(batches_of(1, 4), epochs=1, checkpoint_dir=tmp_path / "file")


@pytest.mark.parametrize("settings", [{"resume": True}, {"save_every": 3}])
def test_what_needs_a_folder_says_so(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=r"^checkpoint_dir: expected a folder"):
        planted().fit(batches_of(1, 4), epochs=1, **settings)
