"""Runs of methods, their records, and going on after an interruption."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from captum_aml import AMLAttribution, SharedMasker, TransformerMasker, methods
from captum_aml.benchmark.explain import (
    FittedMasker,
    MethodRun,
    explain_run,
    load_masker,
    plan_runs,
)
from captum_aml.benchmark.plan import Plan
from captum_aml.exceptions import CheckpointError, InvalidInputError
from captum_aml.maskers import Checkpoint
from captum_aml.methods.learned import MaskMethod
from captum_aml.reviews import reviews_masker_path
from captum_aml.text import TextBatches, TextClassifier, TextExplainer
from tests._helpers.benchmark_runs import (
    by_id,
    opened,
    register,
    reviews,
    reviews_classifier,
    tiny_classifier,
)

TEXTS = ["a good film", "bad plot", "the plot was slow", "good", "a slow actor", "awful"]
AML = FittedMasker("a", "aml", "1" * 64, None)


@pytest.fixture(scope="module")
def classifier() -> TextClassifier:
    return tiny_classifier()


def runs_of(
    names: list[str] | None,
    *,
    seeds: tuple[int, ...] = (0,),
    maskers: dict[str, FittedMasker] | None = None,
    n_steps: dict[str, int] | None = None,
) -> tuple[list[MethodRun], list[str]]:
    return plan_runs(names, seeds=seeds, maskers=maskers or {}, n_steps=n_steps or {})


class TestPlanRuns:
    def test_random_and_leave_one_out_always_take_part(self) -> None:
        runs, notes = runs_of(["saliency"])
        assert [run.name for run in runs] == ["saliency", "random", "occlusion"]
        assert notes == []

    def test_they_take_part_once(self) -> None:
        assert [run.name for run in runs_of(["occlusion", "random"])[0]] == ["occlusion", "random"]

    def test_seeds_are_for_what_draws_at_random(self) -> None:
        runs, _ = runs_of(["lime", "saliency"], seeds=(3, 1))
        assert [(run.name, run.seed) for run in runs] == [
            ("lime", 3),
            ("lime", 1),
            ("saliency", 3),
            ("random", 3),
            ("random", 1),
            ("occlusion", 3),
        ]

    def test_all_that_can_run(self) -> None:
        runs, notes = runs_of(None, maskers={"aml": AML})
        names = [run.name for run in runs]
        assert {*names, "la", "la-tuned", "la-published"} == set(methods.available())
        assert notes == [
            "Left out: la needs a fitted masker, and none was given.",
            "Left out: la-tuned needs a fitted masker, and none was given.",
            "Left out: la-published needs a fitted masker, and none was given.",
        ]
        with_masker = {run.name: run.masker.folder for run in runs if run.masker}
        assert with_masker == {"aml": "a", "aml-tuned": "a", "aml-published": "a"}

    def test_steps_by_an_alias(self) -> None:
        runs, _ = runs_of(["ig", "saliency"], n_steps={"ig": 7})
        assert {run.name: run.n_steps for run in runs} == {
            "integrated-gradients": 7,
            "saliency": None,
            "random": None,
            "occlusion": None,
        }

    @pytest.mark.parametrize(
        ("names", "n_steps", "message"),
        [
            (["magic"], {}, "method: expected one of .*got 'magic'"),
            (["ig", "integrated-gradients"], {}, "methods: expected each once"),
            (["aml"], {}, "masker: aml needs a fitted masker, and none was given; name its folder"),
            (["saliency"], {"lime": 5}, "steps: lime take no part"),
            (["saliency"], {"magic": 5}, "method: expected one of"),
        ],
    )
    def test_mistakes(self, names: list[str], n_steps: dict[str, int], message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            runs_of(names, n_steps=n_steps)


class TestMaskers:
    def test_what_a_folder_says(self) -> None:
        masker = load_masker(reviews_masker_path("la"))
        assert (masker.method, len(masker.digest)) == ("la", 64)
        assert masker.training == Checkpoint.load(masker.folder).training

    def test_no_masker(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError):
            load_masker(tmp_path)

    def test_settings_name_its_weights_and_not_its_place(self) -> None:
        masker = load_masker(reviews_masker_path())
        run = MethodRun(methods.spec("aml"), 0, None, masker)
        method = run.create(reviews_classifier(), batch_size=2)
        assert run.settings(method)["masker"] == masker.digest
        assert masker.folder not in str(run.settings(method))


def explain(
    folder: Path, run: MethodRun, classifier: TextClassifier, texts: list[str] = TEXTS
) -> list[dict[str, Any]]:
    """Records by the texts' numbers."""
    plan = Plan.of(classifier, texts, batch_size=2)
    with opened(folder, run, classifier, plan) as (method, file):
        explain_run(run, method, classifier, plan, file)
        return sorted(file, key=lambda record: record["index"])


class TestRecords:
    # A contribution is a share of what the model gives more for a text than for its baselines,
    # which takes a pass over these.
    @pytest.mark.parametrize(("shared", "passes"), [(True, 2), (False, 3)])
    def test_a_masker_on_the_models_own_states_is_no_pass_of_its_own(
        self, tmp_path: Path, classifier: TextClassifier, shared: bool, passes: int
    ) -> None:
        kind = SharedMasker if shared else TransformerMasker
        attribution = AMLAttribution(
            classifier,
            embedding_layer=classifier.embedding_layer,
            masker=kind.from_model(classifier.model),
        )
        attribution.fit(list(TextBatches(classifier, TEXTS)), epochs=1)
        attribution.save_pretrained(tmp_path / "masker")
        masker = load_masker(tmp_path / "masker")
        run = MethodRun(methods.spec("aml"), 0, None, masker)
        records = explain(tmp_path / "run", run, classifier)
        assert [record["forward_passes"] for record in records] == [passes] * len(TEXTS)

    @pytest.mark.parametrize("fitted", [True, False])
    def test_a_fitted_masker_that_is_given_as_a_module_has_passes_of_its_own(
        self, tmp_path: Path, classifier: TextClassifier, fitted: bool
    ) -> None:
        masker = TransformerMasker.from_model(classifier.model)
        masker.fitted = fitted
        method = MaskMethod(
            AMLAttribution(
                classifier,
                embedding_layer=classifier.embedding_layer,
                masker=masker,
                perturbation="blend",
            ),
            0 if fitted else 4,
            None,
            batch_size=2,
        )
        run, plan = MethodRun(methods.spec("random"), 0), Plan.of(classifier, TEXTS, batch_size=2)
        with opened(tmp_path, run, classifier, plan) as (_, file):
            explain_run(run, method, classifier, plan, file)
            records = list(file)
        # The text and its baselines; and what the masker sees, or each of the masks, and as many
        # subsets, everything and nothing.
        expected = 2 + (1 if fitted else 4 + 4 + 2)
        assert [record["forward_passes"] for record in records] == [expected] * len(TEXTS)

    def test_the_same_as_the_package_explains_elsewhere(self, tmp_path: Path) -> None:
        classifier = reviews_classifier()
        texts = [item.text for item in reviews(3)]
        run = MethodRun(methods.spec("occlusion"), 0)
        records = explain(tmp_path, run, classifier, texts)
        for record, expected in zip(
            records, TextExplainer(classifier, method="occlusion")(texts), strict=True
        ):
            assert record["scores"] == pytest.approx(list(expected.scores), abs=1e-6)
            assert record["predicted"] == expected.predicted
            assert record["probability"] == pytest.approx(expected.probability, abs=1e-6)
            assert record["n_tokens_cut"] == 0

    def test_a_text_without_a_token_has_no_score(
        self, tmp_path: Path, classifier: TextClassifier
    ) -> None:
        run = MethodRun(methods.spec("saliency"), 0)
        empty, full = explain(tmp_path, run, classifier, ["\u200b", "good"])
        assert empty["scores"] == []
        assert len(full["scores"]) == 1

    def test_a_long_text_is_cut(self, tmp_path: Path, classifier: TextClassifier) -> None:
        run = MethodRun(methods.spec("random"), 0)
        (record,) = explain(tmp_path, run, classifier, ["good " * 100])
        assert record["n_tokens_cut"] == 100 - 62  # the model takes 64, of which 2 are special
        assert len(record["scores"]) == 62


def plot_breaks(classifier: TextClassifier, broken: Callable[[Tensor, Tensor], Any]) -> Any:
    """Scores by id, but for a batch in which a text holds the word "plot"."""
    (word,) = classifier.tokenizer("plot", add_special_tokens=False)["input_ids"]

    def scores(ids: Tensor) -> Any:
        holds = (ids == word).any(dim=1)
        return broken(by_id(ids), holds) if holds.any() else by_id(ids)

    return scores


def _raise(_: Tensor, __: Tensor) -> None:
    raise ZeroDivisionError("no\nplots " + "x" * 2000)


class TestFailures:
    @pytest.mark.parametrize(
        ("broken", "message"),
        [
            (_raise, "ZeroDivisionError: no plots xxx"),
            (
                lambda scores, holds: scores.masked_fill(holds[:, None], torch.nan),
                "InvalidInputError: scores: expected finite numbers, got NaN",
            ),
            (
                lambda scores, _: scores[:, 1:],
                "InvalidInputError: scores: expected shape (1, 4), got (1, 3)",
            ),
            (lambda *_: "many", "InvalidInputError: scores: expected shape (1, 4), got str"),
        ],
    )
    def test_are_recorded_for_the_texts_that_fail_and_for_no_others(
        self,
        tmp_path: Path,
        classifier: TextClassifier,
        monkeypatch: pytest.MonkeyPatch,
        broken: Callable[[Tensor, Tensor], Any],
        message: str,
    ) -> None:
        spec = register(monkeypatch, "mine", plot_breaks(classifier, broken))
        records = explain(tmp_path, MethodRun(spec, 0), classifier)
        assert [i for i, record in enumerate(records) if "error" in record] == [1, 2]
        assert records[1]["error"].startswith(message)
        assert len(records[1]["error"]) <= 500
        assert "scores" not in records[1]
        for index in (0, 3, 4, 5):
            batch = classifier.collate(classifier.tokenize([TEXTS[index]]))
            expected = by_id(batch.input_ids)[batch.maskable].tolist()
            assert records[index]["scores"] == pytest.approx(expected)

    def test_hooks_are_gone_after_a_failure(
        self, tmp_path: Path, classifier: TextClassifier, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spec = register(monkeypatch, "mine", plot_breaks(classifier, _raise))
        explain(tmp_path, MethodRun(spec, 0), classifier)
        assert not classifier.model._forward_hooks

    def test_an_interruption_is_none(
        self, tmp_path: Path, classifier: TextClassifier, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(_: Tensor, __: Tensor) -> None:
            raise KeyboardInterrupt

        spec = register(monkeypatch, "mine", plot_breaks(classifier, interrupted))
        with pytest.raises(KeyboardInterrupt):
            explain(tmp_path, MethodRun(spec, 0), classifier)


def test_what_is_done_is_not_done_again(
    tmp_path: Path, classifier: TextClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    stop_at = 3

    def scores(ids: Tensor) -> Tensor:
        if len(seen) == stop_at:
            raise KeyboardInterrupt
        seen.append(len(ids))
        return by_id(ids)

    run = MethodRun(register(monkeypatch, "mine", scores), 0)
    texts = [*TEXTS, "a film", "the actor"]
    plan = Plan.of(classifier, texts, batch_size=2)
    with opened(tmp_path, run, classifier, plan) as (method, file):
        with pytest.raises(KeyboardInterrupt):
            explain_run(run, method, classifier, plan, file)
        assert file.done == 6
    stop_at = -1
    told: list[int] = []
    with opened(tmp_path, run, classifier, plan) as (method, file):
        explain_run(run, method, classifier, plan, file, on_batch=told.append)
        assert [record["index"] for record in file] == list(plan.indices)
    assert seen == [2, 2, 2, 2], "the first three before, the last one after"
    assert told == [2]
