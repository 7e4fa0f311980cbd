"""The search of weights and learning rate: what it finds, how it goes on, what it refuses."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from torch import Tensor

from captum_aml import AMLAttribution, AMLObjective, LAAttribution, LAObjective
from captum_aml._utils.files import locked
from captum_aml.exceptions import InvalidInputError, NonFiniteError
from captum_aml.maskers import EmbeddingMasker
from captum_aml.training import (
    FitSettings,
    SearchResult,
    SearchSettings,
    Trial,
    ValidationMetric,
    search_weights,
    studies,
)
from tests._helpers.models import PlantedClassifier, planted_texts

LENGTH = 7
FIT = FitSettings(epochs=2, seed=0)
#: Rates from useless to good, so that trials differ.
RATES = (1e-4, 1e-1)


def masker() -> EmbeddingMasker:
    torch.manual_seed(0)
    return EmbeddingMasker(feature_shapes=[(LENGTH, 8)], n_classes=3, hidden_size=16)


def make(objective: AMLObjective) -> AMLAttribution:
    return AMLAttribution(PlantedClassifier(), masker=masker(), objective=objective)


TRAINING = list(planted_texts(96, LENGTH, seed=1)[0].split(16))
VALIDATION = list(planted_texts(48, LENGTH, seed=2)[0].split(16))
PLACES = {
    str(ids): places
    for ids, places in zip(VALIDATION, planted_texts(48, LENGTH, seed=2)[1].split(16), strict=True)
}


def share_of_evidence(attribution: Any, batch: Mapping[str, Any]) -> Tensor:
    """The deciding token's share of the mask, which is 1/7 for a mask that knows nothing."""
    ids = batch["inputs"]
    scores = attribution.attribute(ids, n_steps=0)
    place = PLACES[str(ids)]
    share = scores.gather(1, place[:, None])[:, 0] / scores.sum(dim=1).clamp(min=1e-6)
    return torch.as_tensor(share)


def mean_mask(attribution: Any) -> dict[str, float]:
    return {"mean": float(attribution.attribute(VALIDATION[0]).mean())}


EVIDENCE = ValidationMetric("evidence", share_of_evidence, higher_is_better=True)


def search(storage: Path | None = None, **options: Any) -> SearchResult:
    trials = options.pop("trials", 8)
    settings = SearchSettings(
        trials=trials, learning_rates=RATES, n_startup_trials=4, seed=options.pop("seed", 0)
    )
    given = {"metric": EVIDENCE, "fit": FIT, "settings": settings, "storage": storage, **options}
    return search_weights(make, AMLObjective(), TRAINING, VALIDATION, **given)


def plain(trials: tuple[Trial, ...]) -> list[tuple[object, ...]]:
    return [(t.number, t.state, dict(t.weights), t.learning_rate, t.value) for t in trials]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchResult, Path]:
    storage = tmp_path_factory.mktemp("search") / "trials.log"
    return search(storage, score=mean_mask), storage


class TestWhatIsFound:
    def test_the_best_is_better_than_the_worst(self, found: tuple[SearchResult, Path]) -> None:
        result, _ = found
        values = [trial.value for trial in result.ranked]
        assert len(result.trials) == result.n_added == 8
        assert result.best.value == max(v for v in values if v is not None)
        assert result.best.value > 0.9
        assert min(t.value for t in result.trials if t.value is not None) < 0.2

    def test_a_trial_can_be_repeated(self, found: tuple[SearchResult, Path]) -> None:
        best = found[0].best
        attribution = make(AMLObjective(**best.weights))
        arguments = FitSettings(
            epochs=2, seed=0, learning_rate=best.learning_rate, select_by=EVIDENCE
        ).arguments()
        attribution.fit(TRAINING, VALIDATION, **arguments)
        values = torch.cat([share_of_evidence(attribution, {"inputs": b}) for b in VALIDATION])
        assert float(values.mean()) == pytest.approx(best.value, rel=1e-6)
        assert best.values["mean"] == float(attribution.attribute(VALIDATION[0]).mean())

    def test_proposals_are_in_their_ranges(self, found: tuple[SearchResult, Path]) -> None:
        for trial in found[0].trials:
            assert set(trial.weights) == {"prediction_weight", "inverse_weight", "size_weight"}
            assert all(0 <= weight <= 1 for weight in trial.weights.values())
            assert RATES[0] <= trial.learning_rate <= RATES[1]
        assert len({trial.learning_rate for trial in found[0].trials}) == 8

    def test_the_lowest_where_lower_is_better(self) -> None:
        lower = ValidationMetric("evidence", share_of_evidence, higher_is_better=False)
        result = search(metric=lower, trials=3)
        complete = [t.value for t in result.trials if t.value is not None]
        assert result.best.value == min(complete)

    def test_la_has_two_weights(self) -> None:
        result = search_weights(
            lambda objective: LAAttribution(
                PlantedClassifier(), masker=masker(), objective=objective
            ),
            LAObjective(size_penalty="l1"),
            TRAINING[:1],
            VALIDATION,
            metric=EVIDENCE,
            fit=FitSettings(epochs=1),
            settings=SearchSettings(trials=1),
        )
        assert set(result.best.weights) == {"inverse_weight", "size_weight"}


class TestGoingOn:
    @pytest.mark.parametrize("name", ["trials.log", "trials.db"])
    def test_it_adds_only_the_missing_trials(
        self, found: tuple[SearchResult, Path], tmp_path: Path, name: str
    ) -> None:
        # With four drawn at random the estimator proposes the last ones.
        n_trials = 8 if name == "trials.log" else 3
        first = search(tmp_path / name, trials=2)
        told: list[int] = []
        both = search(
            tmp_path / name, trials=n_trials, on_trial=lambda trial: told.append(trial.number)
        )
        assert (first.n_added, both.n_added) == (2, n_trials - 2)
        assert told == list(range(2, n_trials))
        # As if it had never been interrupted.
        assert plain(both.trials) == plain(found[0].trials[:n_trials])
        assert search(tmp_path / name, trials=n_trials).n_added == 0

    def test_the_seed_decides(self) -> None:
        one, other = search(trials=1), search(trials=1, seed=1)
        assert plain(one.trials) == plain(search(trials=1).trials)
        assert one.trials[0].weights != other.trials[0].weights

    def test_an_interrupted_trial_is_made_again(self, tmp_path: Path) -> None:
        calls = []

        def interrupted(objective: AMLObjective) -> AMLAttribution:
            calls.append(objective)
            attribution = make(objective)
            if len(calls) == 2:

                def stop(*_: object, **__: object) -> None:
                    raise KeyboardInterrupt

                attribution.fit = stop  # type: ignore[method-assign]
            return attribution

        settings = SearchSettings(trials=3, learning_rates=RATES, n_startup_trials=4)
        arguments = (AMLObjective(), TRAINING, VALIDATION)
        options: dict[str, Any] = {
            "metric": EVIDENCE,
            "fit": FIT,
            "settings": settings,
            "storage": tmp_path / "trials.log",
        }
        with pytest.raises(KeyboardInterrupt):
            search_weights(interrupted, *arguments, **options)
        result = search_weights(interrupted, *arguments, **options)
        assert [trial.number for trial in result.trials] == [0, 2, 3]
        assert result.n_added == 2

    @pytest.mark.parametrize("owner", ["gone", "killed", "alive"])
    def test_a_killed_searchs_trial_is_made_again(self, tmp_path: Path, owner: str) -> None:
        storage = tmp_path / "trials.log"
        search(tmp_path / "trials.log", trials=1)
        study = optuna.load_study(
            study_name="captum-aml",
            storage=JournalStorage(JournalFileBackend(str(tmp_path / "trials.log"))),
        )
        made = []
        with ExitStack() as stack:
            with studies.presence(storage) as other:
                lock = other.lock_of(other.name)
                assert lock is not None
                assert lock.exists()
            assert not lock.exists()
            study.ask().set_user_attr("captum_aml_owner", [platform.node(), other.name])
            if owner == "killed":
                lock.touch()
            elif owner == "alive":
                stack.enter_context(locked(lock))
            with studies.presence(storage) as own:
                for trial in studies.missing_trials(study, 2, own):
                    made.append(trial.number)
                    studies.note(trial, seconds=0.0)
                    study.tell(trial, 0.0)
        assert made == ([] if owner == "alive" else [2])
        assert studies.n_running(study) == (1 if owner == "alive" else 0)

    def test_a_launchers_processes_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WORLD_SIZE", "2")
        with pytest.raises(InvalidInputError, match="independent processes with one storage"):
            search(trials=1)

    def test_another_search_is_refused(self, found: tuple[SearchResult, Path]) -> None:
        with pytest.raises(InvalidInputError, match=r"holds another search: seed is 0 there and 5"):
            search(found[1], seed=5)
        with pytest.raises(InvalidInputError, match="model is not there and"):
            search(found[1], identity={"model": "another"})

    def test_another_file_is_refused(self, tmp_path: Path) -> None:
        for name in ("notes.log", "notes.db"):
            (tmp_path / name).write_text("milk, eggs\n")
            with pytest.raises(InvalidInputError, match="storage: expected a new file"):
                search(tmp_path / name, trials=1)
            assert (tmp_path / name).read_text() == "milk, eggs\n"
        with pytest.raises(InvalidInputError, match="storage: there is no folder"):
            search(tmp_path / "nowhere" / "trials.log")
        with pytest.raises(InvalidInputError, match="storage: expected a file, got the folder"):
            search(tmp_path)


class TestFailures:
    def test_a_failed_trial_is_recorded_and_the_search_goes_on(self) -> None:
        def fails_once(objective: AMLObjective) -> AMLAttribution:
            count.append(1)
            attribution = make(objective)
            if len(count) == 1:
                for parameter in attribution.masker.parameters():  # type: ignore[union-attr]
                    parameter.data.fill_(float("nan"))
            return attribution

        count: list[int] = []
        result = search_weights(
            fails_once,
            AMLObjective(),
            TRAINING,
            VALIDATION,
            metric=EVIDENCE,
            fit=FIT,
            settings=SearchSettings(trials=3, learning_rates=RATES),
        )
        assert [trial.state for trial in result.trials] == ["failed", "complete", "complete"]
        assert result.trials[0].value is None
        assert "finite" in result.trials[0].error
        assert result.best.number in (1, 2)

    def test_no_trial_is_complete(self) -> None:
        never = ValidationMetric(
            "never", lambda _, batch: torch.full((len(batch["inputs"]),), torch.nan), True
        )
        result = search(metric=never, trials=2)
        assert [trial.state for trial in result.trials] == ["failed", "failed"]
        with pytest.raises(NonFiniteError, match="all 2 failed"):
            _ = result.best

    def test_a_first_value_that_is_not_finite_neither_counts_nor_prunes(self) -> None:
        calls: list[int] = []

        def nan_at_first(_: object, batch: Mapping[str, Any]) -> Tensor:
            calls.append(1)
            first = (len(calls) - 1) // len(VALIDATION) % 2 == 0
            return torch.full((len(batch["inputs"]),), torch.nan if first else 0.5)

        metric = ValidationMetric("nan-at-first", nan_at_first, True)
        # Beyond the five trials that the pruner leaves alone.
        result = search(metric=metric, trials=7)
        assert [(t.state, t.value) for t in result.trials] == [("complete", 0.5)] * 7

    def test_hopeless_trials_are_pruned(self) -> None:
        values = iter([0.9, 0.9] * 5 + [0.1] + [0.9, 0.95])
        current = {"value": 0.0, "left": 0}

        def scripted(_: object, batch: Mapping[str, Any]) -> Tensor:
            if current["left"] == 0:
                current.update(value=next(values), left=len(VALIDATION))
            current["left"] -= 1
            return torch.full((len(batch["inputs"]),), current["value"])

        settings = SearchSettings(trials=7, learning_rates=RATES)
        result = search_weights(
            make,
            AMLObjective(),
            TRAINING[:1],
            VALIDATION,
            metric=ValidationMetric("scripted", scripted, True),
            fit=FIT,
            settings=settings,
        )
        # Five trials come first; the sixth is below their median after its first epoch.
        assert [t.state for t in result.trials] == ["complete"] * 5 + ["pruned", "complete"]
        assert result.trials[5].value == pytest.approx(0.1)
        assert result.best.number == 6

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"trials": 0}, "trials: expected an integer of at least 1"),
            ({"learning_rates": (1e-3, 1e-4)}, "the lowest and the highest"),
            ({"learning_rates": (0.0, 1e-4)}, "learning_rate"),
            ({"seed": -1}, "seed"),
        ],
    )
    def test_settings_are_checked(self, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            SearchSettings(**settings)

    def test_an_objective_without_weights(self) -> None:
        with pytest.raises(InvalidInputError, match="objective: expected one"):
            search_weights(make, object(), TRAINING, VALIDATION, metric=EVIDENCE)
