"""The registry of metrics: names, operators, and what is measured by default."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from captum_aml.benchmark import BenchmarkSettings, results_from_json, run_benchmark
from captum_aml.cli import main as cli
from captum_aml.exceptions import InvalidInputError
from captum_aml.metrics import Convention, Metric, MetricInputs, Removal, registry
from captum_aml.metrics.conventions import PRESETS
from captum_aml.metrics.registry import (
    available_metrics,
    bind,
    default_metrics,
    metric_of,
    register_metric,
)
from captum_aml.reviews import reviews_classifier_path
from captum_aml.training import validation_metrics
from tests._helpers.benchmark_runs import reviews, reviews_classifier
from tests._helpers.fit_runs import batches_of, planted

DEFAULT = PRESETS["default"]
MINE = Metric("mine", "Mine", True, "complexity", "What I want.")


def largest(inputs: MetricInputs, scores: Tensor, *_: object) -> Tensor:
    return scores.masked_fill(~inputs.tokens, -torch.inf).amax(dim=1)


def run(command: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(command)
    assert stop.value.code == 0


class TestDefaults:
    def test_a_second_operator_that_no_method_optimizes(self) -> None:
        assert default_metrics(DEFAULT, rationales=False) == [
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
            entry.metric.title for entry in bind(default_metrics(preset, rationales=True), preset)
        }
        assert "AOPC comp. (delete)" in titles
        assert "AOPC comp. (mask)" in titles

    def test_rationales_add_plausibility(self) -> None:
        more = set(default_metrics(DEFAULT, rationales=True))
        assert more - set(default_metrics(DEFAULT, rationales=False)) == {
            "auprc",
            "average-precision",
            "token-f1",
            "iou-f1",
            "recall-at-10",
        }


class TestBind:
    @pytest.mark.parametrize("name", available_metrics())
    def test_says_what_is_measured(self, name: str) -> None:
        metric = metric_of(name)
        assert metric.name == name
        assert "{" not in metric.description
        assert metric.description.endswith(".")

    def test_the_operator_is_in_title_and_description(self) -> None:
        own, other = bind(["sufficiency", "sufficiency@pad"], DEFAULT)
        assert own.metric.title == "Suff. (delete)"
        assert own.metric.description.endswith("removal by delete.")
        assert other.metric.name == "sufficiency@pad"
        assert other.metric.title == "Suff. (pad)"
        assert other.metric.description.endswith("removal by pad.")

    def test_the_convention_s_operators(self) -> None:
        convention = Convention(removal="pad", log_odds_removal="delete")
        titles = [entry.metric.title for entry in bind(["sufficiency", "log-odds"], convention)]
        assert titles == ["Suff. (pad)", "Log-odds (delete)"]

    def test_an_operator_of_the_user_s_own(self) -> None:
        removal = Removal("{odd}", lambda inputs, *_: inputs)
        (bound,) = bind(["sufficiency"], Convention(removal=removal))
        assert bound.metric.title == "Suff. ({odd})"

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
        monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))

    def test_a_metric_more(self) -> None:
        register_metric(MINE)(largest)
        assert available_metrics()[-1] == "mine"
        assert "mine" in default_metrics(DEFAULT, rationales=False)
        assert metric_of("mine") == MINE

    def test_a_name_is_taken_once_unless_it_is_replaced(self) -> None:
        register_metric(MINE)(largest)
        with pytest.raises(InvalidInputError, match="'mine' is registered already"):
            register_metric(MINE)(largest)
        register_metric(MINE, replace=True)(largest)

    @pytest.mark.parametrize("name", ["", "a@b", "a,b"])
    def test_names_that_cannot_be_written(self, name: str) -> None:
        metric = Metric(name, "", None, "complexity", "")
        with pytest.raises(InvalidInputError, match="metric: expected a name without '@'"):
            register_metric(metric)(largest)

    def test_fit_finds_it(self) -> None:
        register_metric(MINE)(largest)
        val = batches_of(2, 6, seed=2)
        aml = planted().fit(batches_of(2, 4), val, epochs=1, select_by="mine")
        assert "mine" in validation_metrics()
        assert aml.fit_summary_ is not None
        assert aml.fit_summary_.best is not None
        ids = torch.cat(val)
        scores = aml.attribute(ids)
        assert isinstance(scores, Tensor)
        expected = scores.masked_fill(ids == 0, -torch.inf).amax(dim=1).mean()
        assert aml.fit_summary_.best.value == pytest.approx(expected.item(), abs=1e-6)

    def test_a_benchmark_and_the_command_line_find_it(self, tmp_path: Path) -> None:
        register_metric(MINE)(largest)
        settings = BenchmarkSettings(methods=["random"], metrics=["mine"])
        results = run_benchmark(reviews_classifier(), reviews(3), tmp_path / "a", settings)
        means = {row.method: row.cells["mine"].mean for row in results.rows}
        assert set(means) == {"random", "occlusion"}

        data = tmp_path / "texts.jsonl"
        lines = [json.dumps({"text": item.text, "label": item.label}) for item in reviews(3)]
        data.write_text("\n".join(lines), "utf-8")
        model = ["--model", str(reviews_classifier_path()), "--device", "cpu"]
        command = ["benchmark", "--data", str(data), "--methods", "random", "--metrics", "mine"]
        command += ["--seeds", "0", "--out", str(tmp_path / "b"), *model]
        run(command)
        written = results_from_json((tmp_path / "b" / "results.json").read_text("utf-8"))
        again = {row.method: row.cells["mine"].mean for row in written.rows}
        assert again == pytest.approx(means, abs=1e-6)

        command = ["fit", "--data", str(data), "--validation", str(data), "--select-by", "mine"]
        command += ["--epochs", "1", "--out", str(tmp_path / "c"), *model]
        run(command)
        assert "mine" in (tmp_path / "c" / "history.json").read_text("utf-8")
