"""A benchmark from start to report, interrupted, resumed, extended and scored again."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import signal
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from captum_aml import methods
from captum_aml.benchmark import (
    BenchmarkResults,
    BenchmarkSettings,
    results_from_json,
    run_benchmark,
)
from captum_aml.benchmark.provenance import package_versions
from captum_aml.exceptions import CheckpointError, InvalidInputError
from captum_aml.methods import MethodOptions
from captum_aml.metrics import LimitSearch
from captum_aml.reviews import reviews_masker_path
from captum_aml.text import LabelledText, TextClassifier
from captum_aml.text.saved import model_fingerprint
from tests._helpers import processes
from tests._helpers.benchmark_runs import (
    by_id,
    contents,
    explanations,
    found,
    register,
    reviews,
    reviews_classifier,
    tiny_classifier,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

TEXTS = [
    LabelledText(text, label, rationale, name)
    for text, label, rationale, name in (
        ("a good film", 1, ((2, 6),), "first"),
        ("bad", 0, None, None),
        ("the plot was awful", "negative", ((13, 18),), None),
        ("not very good", None, None, None),
        ("slow but gripping", 1, (), None),
    )
]
SETTINGS = BenchmarkSettings(
    methods=["saliency"],
    metrics=["aopc-comprehensiveness", "normalized-aopc", "token-f1"],
    seeds=(0, 1),
    batch_size=1,
    search=LimitSearch(beam_size=2, max_tokens=4),
)


@pytest.fixture
def classifier() -> TextClassifier:
    return tiny_classifier()


@pytest.fixture(autouse=True)
def _no_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """They take most of a small run's time, and have their own tests."""
    if "browser" not in request.fixturenames:
        for name in ("cost_figure", "removal_figure"):
            monkeypatch.setattr(f"captum_aml.benchmark.report.page.{name}", lambda *_, **__: "")


def bench(
    classifier: TextClassifier,
    folder: Path,
    *,
    texts: list[LabelledText] = TEXTS,
    overwrite: bool = False,
    **changed: Any,
) -> BenchmarkResults:
    settings = replace(SETTINGS, **changed)
    return run_benchmark(classifier, texts, folder, settings, overwrite=overwrite)


class TestResults:
    def test_what_is_in_the_folder(self, tmp_path: Path, classifier: TextClassifier) -> None:
        parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
        results = bench(classifier, tmp_path)
        there = {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")}
        assert there == {
            *("report.html", "report.md", "results.json", "scores.parquet"),
            *("run.json", "explanations", "values"),
        }
        again = results_from_json((tmp_path / "results.json").read_text("utf-8"))
        assert [row.method for row in again.rows] == ["saliency", "random", "occlusion"]
        assert again.rows == results.rows
        rows = parquet.read_table(tmp_path / "scores.parquet").to_pylist()
        assert len(rows) == 4 * len(TEXTS), "random has two seeds"
        written = {(row["method"], row["seed"], row["index"]): row for row in rows}
        row = written["occlusion", 0, 0]
        assert row["tokens"] == ["a", "good", "film"]
        assert row["offsets"] == [[0, 1], [2, 6], [7, 11]]
        assert (row["id"], row["label"], row["text"]) == ("first", 1, "a good film")
        assert row["target"] == row["predicted"]
        assert row["target_probability"] == row["probability"] >= 0.5
        assert written["occlusion", 0, 2]["label"] == 0
        for name, value in (("saliency", 1.0), ("random", 0.0)):
            assert written[name, 0, 3]["forward_passes"] == value

    def test_rows_say_what_made_them(self, tmp_path: Path) -> None:
        maskers = [reviews_masker_path("aml"), reviews_masker_path("la")]
        results = bench(
            reviews_classifier(),
            tmp_path,
            texts=reviews(3),
            methods=["aml", "la-tuned", "mask-gradient"],
            metrics=["token-f1"],
            maskers=maskers,
            n_steps={"la-tuned": 2, "mask-gradient": 4},
            seeds=(4,),
        )
        rows = {row.method: row for row in results.rows}
        assert {name: row.role for name, row in rows.items()} == {
            "aml": "learned",
            "la-tuned": "learned",
            "mask-gradient": "learned",
            "random": "random",
            "occlusion": "baseline",
        }
        assert rows["aml"].settings["masker"] == results.fingerprints["masker aml"]
        assert rows["la-tuned"].settings["masker"] == results.fingerprints["masker la"]
        assert rows["la-tuned"].settings["n_steps"] == 2
        assert rows["mask-gradient"].settings["masker"] is None
        assert rows["aml"].training != ""
        assert rows["mask-gradient"].training == rows["occlusion"].training == ""
        # The masker's, the model's, and the model's for the baselines.
        assert rows["aml"].cost.forward_passes == 3
        # The text, its baselines, each mask, and as many subsets, all tokens and none; and in the
        # first call what "auto" tries out.
        assert rows["mask-gradient"].cost.forward_passes == 2 + 4 + (4 + 2) + 4
        assert rows["mask-gradient"].cost.backward_passes == 4
        assert rows["aml"].cells["token-f1"].comparison is not None
        assert rows["random"].seeds == [4]
        # Leave-one-out finds the deciding words of this model, chance does not.
        assert rows["occlusion"].cells["token-f1"].mean > rows["random"].cells["token-f1"].mean

    def test_what_is_recorded(self, tmp_path: Path, classifier: TextClassifier) -> None:
        results = bench(classifier, tmp_path)
        assert results.settings["seeds"] == [0, 1]
        assert results.settings["convention"] == "default"
        assert results.settings["removal"] == "delete"
        assert results.settings["metrics"] == SETTINGS.metrics
        assert results.settings["threads"] == torch.get_num_threads()
        assert results.versions == package_versions()
        assert results.versions["torch"] == torch.__version__
        assert results.fingerprints["model"] == model_fingerprint(classifier)
        words = " ".join(results.protocol)
        assert "each of 5 texts" in words
        assert "“default”" in words
        assert "searched for 5 texts of up to 4 tokens, exactly for 5" in words
        assert results.notes == [
            "4 of 5 texts have a label; predictions are explained whether they are right or not."
        ]

    def test_limits_that_were_not_searched_are_said(
        self, tmp_path: Path, classifier: TextClassifier
    ) -> None:
        results = bench(classifier, tmp_path, search=LimitSearch(max_tokens=0))
        assert all("normalized-aopc" not in row.cells for row in results.rows)
        assert "No text has 0 tokens or fewer" in results.protocol[-1]

    def test_the_usual_metrics(self, tmp_path: Path, classifier: TextClassifier) -> None:
        results = bench(classifier, tmp_path, metrics=None, methods=["attention"], texts=TEXTS[:2])
        names = [metric.name for metric in results.metrics]
        assert {"aopc-comprehensiveness", "aopc-comprehensiveness@mask", "auprc"} <= set(names)

    def test_the_page_s_texts(self, tmp_path: Path, classifier: TextClassifier) -> None:
        results = bench(classifier, tmp_path, n_examples=2)
        assert [card.text for card in results.examples] == ["a good film", "bad"]
        for card in results.examples:
            assert [row.method for row in card.rows] == ["saliency", "random", "occlusion"]
            assert card.predicted in ("negative", "positive")
        assert bench(classifier, tmp_path, n_examples=0).examples == []

    def test_cut_texts_are_noted(self, tmp_path: Path, classifier: TextClassifier) -> None:
        texts = [LabelledText("good " * 70), LabelledText("bad film")]
        results = bench(classifier, tmp_path, texts=texts, metrics=["entropy"])
        assert results.notes[0].startswith("1 of 2 texts are longer than the 64 tokens")
        assert results.examples[0].seen == len("good " * 62) - 1
        assert results.examples[1].seen is None

    def test_a_text_without_a_token(self, tmp_path: Path, classifier: TextClassifier) -> None:
        texts = [LabelledText("\u200b"), *TEXTS[:2]]
        results = bench(classifier, tmp_path, texts=texts)
        assert all(row.cells["aopc-comprehensiveness"].n == 2 for row in results.rows)
        assert not any(row.failures for row in results.rows)

    def test_failures(
        self, tmp_path: Path, classifier: TextClassifier, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(ids: Tensor) -> Tensor:
            if ids.shape[1] > length:
                raise RuntimeError("too long <b>")
            return by_id(ids)

        register(monkeypatch, "mine", broken)
        length = 4  # with two special tokens
        results = bench(classifier, tmp_path / "some", methods=["mine"])
        (mine,) = (row for row in results.rows if row.method == "mine")
        assert sorted(failure.index for failure in mine.failures) == [0, 2, 3, 4]
        assert {failure.message for failure in mine.failures} == {"RuntimeError: too long <b>"}
        assert mine.cells["aopc-comprehensiveness"].n == 1
        assert mine.cost.forward_passes == 0
        html = (tmp_path / "some" / "report.html").read_text("utf-8")
        assert "too long &lt;b&gt;" in html
        length = 0
        results = bench(classifier, tmp_path / "all", methods=["mine"])
        (mine,) = (row for row in results.rows if row.method == "mine")
        assert len(mine.failures) == 5
        assert mine.cells == {}
        assert math.isnan(mine.cost.seconds), "not free, but unknown"
        assert mine.rank is None


class TestMistakes:
    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"seeds": ()}, "seeds: expected different numbers"),
            ({"seeds": (1, 1)}, "seeds: expected different numbers"),
            ({"seeds": (-1,)}, "seeds: expected different numbers"),
            ({"batch_size": 0}, "batch_size: expected 1 or more"),
            ({"n_examples": -1}, "n_examples: expected 0 or more"),
            ({"methods": ["magic"]}, "method: expected one of"),
            ({"metrics": ["truth"]}, "metrics: expected some of"),
            ({"metrics": []}, "metrics: expected at least one"),
            ({"convention": "fancy"}, "convention: expected a Convention or one of"),
            ({"texts": []}, "texts: expected one or more"),
            ({"texts": [LabelledText("a", "happy")]}, "label: expected one of the model's classes"),
            ({"maskers": [reviews_masker_path()] * 2}, "masker: expected one for each method"),
        ],
    )
    def test_are_told_before_anything_is_written(
        self, tmp_path: Path, classifier: TextClassifier, changed: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(InvalidInputError, match=message):
            bench(classifier, tmp_path / "out", **changed)
        assert not (tmp_path / "out").exists()

    def test_a_masker_of_another_model(self, tmp_path: Path, classifier: TextClassifier) -> None:
        with pytest.raises(CheckpointError):
            bench(classifier, tmp_path, methods=["aml"], maskers=[reviews_masker_path()])

    @pytest.mark.parametrize("module", ["scipy", "matplotlib", "pyarrow", "sklearn"])
    def test_a_package_for_the_report_is_missed_at_once(
        self,
        tmp_path: Path,
        classifier: TextClassifier,
        monkeypatch: pytest.MonkeyPatch,
        module: str,
    ) -> None:
        find = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: None if name == module else find(name)
        )
        with pytest.raises(ImportError, match=r'pip install "captum-aml\[benchmark\]"'):
            bench(classifier, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_a_missing_package(
        self, tmp_path: Path, classifier: TextClassifier, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spec = register(monkeypatch, "mine", by_id, stochastic=True)

        def factory(*_: object) -> Any:
            raise ImportError("method 'mine' needs the moon, which is not installed")

        monkeypatch.setitem(methods.registry._REGISTRY, "mine", replace(spec, factory=factory))
        with pytest.raises(ImportError, match="needs the moon"):
            bench(classifier, tmp_path, methods=["mine"])
        assert not list((tmp_path / "explanations").iterdir()), "told before an hour is spent"
        monkeypatch.setattr(methods, "available", lambda: ("mine", "random", "occlusion"))
        results = bench(classifier, tmp_path, methods=None)
        assert [row.method for row in results.rows] == ["random", "occlusion"]
        assert results.notes[0] == (
            "Left out: mine. method 'mine' needs the moon, which is not installed"
        )


def bench_until_killed(folder: Path) -> None:
    calls = 0

    def scores(ids: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return by_id(ids)

    register(pytest.MonkeyPatch(), "mine", scores)
    bench(tiny_classifier(), folder, methods=["saliency", "mine"])


class TestResuming:
    @pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
    def test_a_killed_run_goes_on_and_gives_the_same(
        self, tmp_path: Path, classifier: TextClassifier, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        killed = processes.start(bench_until_killed, tmp_path / "killed")
        assert processes.exit_code(killed) == -signal.SIGKILL
        before = explanations(tmp_path / "killed")
        # A line about the method, and one for each text: saliency's are complete.
        assert {name: len(lines) for name, lines in before.items()} == {
            "mine-0.jsonl": 1 + 3,
            "occlusion-0.jsonl": 1,
            "random-0.jsonl": 1,
            "random-1.jsonl": 1,
            "saliency-0.jsonl": 1 + 5,
        }
        calls: list[int] = []

        def scores(ids: Tensor) -> Tensor:
            calls.append(len(ids))
            return by_id(ids)

        register(monkeypatch, "mine", scores)
        resumed = bench(classifier, tmp_path / "killed", methods=["saliency", "mine"])
        assert calls == [1, 1], "three of five were done"
        whole = bench(classifier, tmp_path / "whole", methods=["saliency", "mine"])
        assert found(tmp_path / "killed") == found(tmp_path / "whole")
        assert explanations(tmp_path / "killed") == explanations(tmp_path / "whole")
        assert resumed.examples == whole.examples

    def test_an_interruption_while_scoring(
        self, tmp_path: Path, classifier: TextClassifier, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from captum_aml.benchmark import score

        whole = tmp_path / "whole"
        bench(classifier, whole)
        of_curve = score.curve_of
        left = 5

        def interrupted(*arguments: Any, **options: Any) -> Tensor:
            nonlocal left
            left -= 1
            if not left:
                raise KeyboardInterrupt
            return of_curve(*arguments, **options)

        monkeypatch.setattr(score, "curve_of", interrupted)
        with pytest.raises(KeyboardInterrupt):
            bench(classifier, tmp_path / "cut")
        assert not (tmp_path / "cut" / "results.json").exists()
        bench(classifier, tmp_path / "cut")
        assert found(tmp_path / "cut") == found(whole)

    def test_a_finished_run_computes_nothing(
        self, tmp_path: Path, classifier: TextClassifier, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bench(classifier, tmp_path)
        report = (tmp_path / "results.json").read_bytes()
        monkeypatch.setattr(classifier.model, "forward", None)
        bench(classifier, tmp_path)
        assert (tmp_path / "results.json").read_bytes() == report

    def test_methods_and_seeds_may_join(self, tmp_path: Path, classifier: TextClassifier) -> None:
        together = tmp_path / "together"
        bench(classifier, together, methods=["saliency", "attention"], seeds=(0, 1, 2))
        joined = tmp_path / "joined"
        bench(classifier, joined, seeds=(0,))
        before = contents(list((joined / "explanations").iterdir()))
        assert set(before) == {"occlusion-0.jsonl", "random-0.jsonl", "saliency-0.jsonl"}
        bench(classifier, joined, methods=["saliency", "attention"], seeds=(0, 1, 2))
        after = contents(list((joined / "explanations").iterdir()))
        assert {name: after[name] for name in before} == before
        assert found(joined) == found(together)

    def test_methods_may_be_left_out_again(
        self, tmp_path: Path, classifier: TextClassifier
    ) -> None:
        bench(classifier, tmp_path, methods=["saliency", "attention"])
        results = bench(classifier, tmp_path)
        assert [row.method for row in results.rows] == ["saliency", "random", "occlusion"]

    def test_other_metrics_without_explaining_again(
        self, tmp_path: Path, classifier: TextClassifier, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def scores(ids: Tensor) -> Tensor:
            assert may_explain
            return by_id(ids)

        may_explain = True
        register(monkeypatch, "mine", scores)
        bench(classifier, tmp_path, methods=["mine"])
        before = contents(list((tmp_path / "explanations").iterdir()))
        may_explain = False
        other: dict[str, Any] = {"metrics": ["log-odds", "entropy"], "convention": "aml"}
        results = bench(classifier, tmp_path, methods=["mine"], **other)
        assert contents(list((tmp_path / "explanations").iterdir())) == before
        assert [metric.name for metric in results.metrics] == other["metrics"]
        again = found(tmp_path)
        may_explain = True
        bench(classifier, tmp_path / "anew", methods=["mine"], **other)
        assert again == found(tmp_path / "anew")

    def test_a_file_that_was_removed_is_made_again(
        self, tmp_path: Path, classifier: TextClassifier
    ) -> None:
        bench(classifier, tmp_path)
        before = found(tmp_path)
        (tmp_path / "explanations" / "saliency-0.jsonl").unlink()
        bench(classifier, tmp_path)
        assert found(tmp_path) == before


def _files(folder: Path) -> list[Path]:
    """All but the lock, which says who wrote last."""
    return [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]


class TestFolders:
    def test_another_model_s_or_other_texts_are_refused(
        self, tmp_path: Path, classifier: TextClassifier
    ) -> None:
        bench(classifier, tmp_path)
        before = contents(_files(tmp_path))
        for other in (
            partial(bench, tiny_classifier(seed=1)),
            partial(bench, classifier, texts=TEXTS[:-1]),
            partial(bench, classifier, texts=[*TEXTS[:-1], replace(TEXTS[-1], label=0)]),
        ):
            with pytest.raises(InvalidInputError, match=r"holds another run.*--overwrite"):
                other(tmp_path)
        assert contents(_files(tmp_path)) == before

    def test_other_steps_are_refused(self, tmp_path: Path, classifier: TextClassifier) -> None:
        bench(classifier, tmp_path, methods=["ig"], n_steps={"ig": 2})
        with pytest.raises(InvalidInputError, match=r"settings\.n_steps is 2 there and 3 here"):
            bench(classifier, tmp_path, methods=["ig"], n_steps={"ig": 3})

    def test_overwriting(self, tmp_path: Path, classifier: TextClassifier) -> None:
        bench(classifier, tmp_path, methods=["attention"])
        bench(tiny_classifier(seed=1), tmp_path, overwrite=True)
        bench(tiny_classifier(seed=1), tmp_path / "anew")
        assert found(tmp_path) == found(tmp_path / "anew")
        assert set(explanations(tmp_path)) == set(explanations(tmp_path / "anew"))


class TestFingerprint:
    def test_weights_and_class_names_count(self, classifier: TextClassifier) -> None:
        digest = model_fingerprint(classifier)
        assert model_fingerprint(tiny_classifier()) == digest
        other = tiny_classifier()
        with torch.no_grad():
            other.model.classifier.bias[0] += 1e-6
        assert model_fingerprint(other) != digest
        renamed = tiny_classifier()
        renamed.model.config.id2label = {0: "positive", 1: "negative"}
        assert model_fingerprint(renamed) != digest

    def test_any_type_of_weight(self, classifier: TextClassifier) -> None:
        classifier.model.to(torch.bfloat16)
        classifier.model.register_buffer("flag", torch.tensor(True))
        assert len(model_fingerprint(classifier)) == 64


EVIL = "good <script>alert(1)</script> \x1b[31m \u202e & film"


def test_hostile_texts_reach_the_page_as_text(tmp_path: Path, classifier: TextClassifier) -> None:
    bench(classifier, tmp_path, texts=[LabelledText(EVIL), *TEXTS[:1]])
    for name in ("report.html", "report.md"):
        written = (tmp_path / name).read_text("utf-8")
        assert "<script>alert" not in written
        assert "\x1b" not in written
    assert "alert" not in (tmp_path / "results.json").read_text("utf-8"), "it holds no texts"


def test_the_page_of_a_real_run_in_a_browser(
    tmp_path: Path, classifier: TextClassifier, browser: Browser
) -> None:
    texts = [LabelledText(EVIL), *TEXTS[:3]]
    results = bench(classifier, tmp_path, texts=texts, methods=["saliency", "attention"])
    page: Page = browser.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.goto((tmp_path / "report.html").as_uri())
    shown = page.locator("article .text").first.text_content()
    assert shown is not None
    assert "<script>alert(1)</script>" in shown
    assert page.locator("svg:visible").count() == 2
    table = page.locator("table.results").first
    column = 1 + 1  # after the method and its rank
    table.locator("thead th").nth(column).locator("button").click()
    names = table.locator("tbody .name").all_inner_texts()
    means = {row.method: row.cells["aopc-comprehensiveness"].mean for row in results.rows}
    assert [means[name] for name in names] == sorted(means.values(), reverse=True)
    page.close()
    assert complaints == []


def test_results_are_plain_json(tmp_path: Path, classifier: TextClassifier) -> None:
    bench(classifier, tmp_path)
    document = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert [row["method"] for row in document["rows"]] == ["saliency", "random", "occlusion"]


def test_a_method_is_made_with_the_run_s_options(
    tmp_path: Path, classifier: TextClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = register(monkeypatch, "mine", by_id, stochastic=True)
    given: list[MethodOptions] = []

    def factory(forward_func: Any, layer: Any, options: MethodOptions) -> Any:
        assert forward_func is classifier
        assert layer is classifier.embedding_layer
        given.append(options)
        return spec.factory(forward_func, layer, options)

    monkeypatch.setitem(
        methods.registry._REGISTRY, "mine", replace(spec, factory=factory, steps="samples")
    )
    bench(classifier, tmp_path, methods=["mine"], seeds=(3, 1), n_steps={"mine": 7}, batch_size=2)
    assert given == [MethodOptions(n_steps=7, seed=seed, batch_size=2) for seed in (3, 1)]
