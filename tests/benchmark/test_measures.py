"""The registry of measures: names, operators, and what is measured by default."""

from __future__ import annotations

import pytest

from captum_aml.benchmark import measures
from captum_aml.benchmark.measures import (
    MeasureSpec,
    available_measures,
    bind,
    default_measures,
    measure_of,
    register_measure,
)
from captum_aml.benchmark.results import Measure
from captum_aml.exceptions import InvalidInputError
from captum_aml.metrics import Convention, Removal
from captum_aml.metrics.conventions import PRESETS

DEFAULT = PRESETS["default"]
MINE = MeasureSpec(
    Measure("mine", "Mine", True, "complexity", "What I want."), lambda *_: lambda _, scores: scores
)


class TestDefaults:
    def test_a_second_operator_that_no_method_optimizes(self) -> None:
        assert default_measures(DEFAULT, rationales=False) == [
            "aopc-comprehensiveness",
            "aopc-comprehensiveness@mask",
            "aopc-sufficiency",
            "aopc-sufficiency@mask",
            "aopc-log-odds",
            "normalized-aopc",
            "effective-tokens",
        ]

    @pytest.mark.parametrize("name", PRESETS)
    def test_deletion_and_another_one_for_every_preset(self, name: str) -> None:
        preset = PRESETS[name]
        titles = {
            entry.measure.title for entry in bind(default_measures(preset, rationales=True), preset)
        }
        assert "AOPC comp. (delete)" in titles
        assert "AOPC comp. (mask)" in titles

    def test_rationales_add_plausibility(self) -> None:
        more = set(default_measures(DEFAULT, rationales=True))
        assert more - set(default_measures(DEFAULT, rationales=False)) == {
            "auprc",
            "average-precision",
            "token-f1",
            "iou-f1",
            "recall-at-10",
        }


class TestBind:
    @pytest.mark.parametrize("name", available_measures())
    def test_says_what_is_measured(self, name: str) -> None:
        measure = measure_of(name)
        assert measure.name == name
        assert "{" not in measure.description
        assert measure.description.endswith(".")

    def test_the_operator_is_in_title_and_description(self) -> None:
        own, other = bind(["sufficiency", "sufficiency@pad"], DEFAULT)
        assert own.measure.title == "Suff. (delete)"
        assert own.measure.description.endswith("removal by delete.")
        assert other.measure.name == "sufficiency@pad"
        assert other.measure.title == "Suff. (pad)"
        assert other.measure.description.endswith("removal by pad.")

    def test_the_convention_s_operators(self) -> None:
        convention = Convention(removal="pad", log_odds_removal="delete")
        titles = [entry.measure.title for entry in bind(["sufficiency", "log-odds"], convention)]
        assert titles == ["Suff. (pad)", "Log-odds (delete)"]

    def test_an_operator_of_the_user_s_own(self) -> None:
        removal = Removal("{odd}", lambda inputs, *_: inputs)
        (bound,) = bind(["sufficiency"], Convention(removal=removal))
        assert bound.measure.title == "Suff. ({odd})"

    def test_limits_are_those_of_the_operator(self) -> None:
        own, masked = bind(["normalized-aopc", "normalized-aopc@mask"], DEFAULT)
        (published,) = bind(["normalized-aopc"], PRESETS["naopc"])
        found = [entry.limits.name for entry in (own, masked, published) if entry.limits]
        assert found == ["delete", "mask", "mask"]

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            ([], "metrics: expected at least one, got none"),
            (["truth"], "metrics: expected some of aopc-comprehensiveness, .*got 'truth'"),
            (["auprc", "auprc"], "metrics: expected each once"),
            (
                ["sufficiency@burn"],
                "metrics: expected one of delete, mask, pad after 'sufficiency'",
            ),
            (["auprc@mask"], "metrics: expected no operator after 'auprc'"),
        ],
    )
    def test_mistakes(self, names: list[str], message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            bind(names, DEFAULT)


class TestRegister:
    @pytest.fixture(autouse=True)
    def _registry(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(measures, "_REGISTRY", dict(measures._REGISTRY))

    def test_a_measure_more(self) -> None:
        register_measure(MINE)
        assert available_measures()[-1] == "mine"
        assert "mine" in default_measures(DEFAULT, rationales=False)
        assert measure_of("mine") == MINE.measure

    def test_a_name_is_taken_once_unless_it_is_replaced(self) -> None:
        register_measure(MINE)
        with pytest.raises(InvalidInputError, match="'mine' is registered already"):
            register_measure(MINE)
        register_measure(MINE, replace=True)

    @pytest.mark.parametrize("name", ["", "a@b"])
    def test_names_that_cannot_be_written(self, name: str) -> None:
        entry = MeasureSpec(Measure(name, "", None, "complexity", ""), MINE.factory)
        with pytest.raises(InvalidInputError, match="measure: expected a name without '@'"):
            register_measure(entry)
