"""Scores of whole windows against the metrics called for one text at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from captum_aml import metrics
from captum_aml.benchmark import score
from captum_aml.benchmark.plan import Plan
from captum_aml.benchmark.score import RunKey, Scored, Scorer
from captum_aml.benchmark.store import BenchmarkFolder
from captum_aml.metrics import (
    LimitSearch,
    Metric,
    MetricInputs,
    available_metrics,
    register_metric,
    registry,
)
from captum_aml.metrics.conventions import PRESETS
from captum_aml.metrics.registry import BoundMetric, bind
from captum_aml.text import LabelledText, TextClassifier
from tests._helpers.benchmark_runs import Passes, reviews, reviews_classifier, tiny_classifier

TEXTS = [*reviews(5), LabelledText("no rationale here"), LabelledText("a plot", 1, ())]
FAILED = 2
SHORT = [
    LabelledText(text, rationale=((0, 3),))
    for text in ("good", "the plot", "not very good", "bad film", "slow actor at first", "awful !")
]
SEARCH = LimitSearch(beam_size=2, max_tokens=11)
KEYS = [RunKey("one", 0), RunKey("one", 1), RunKey("other", 0)]


@pytest.fixture(scope="module")
def classifier() -> TextClassifier:
    return reviews_classifier()


def scorer(
    classifier: TextClassifier,
    names: list[str],
    *,
    convention: str = "default",
    batch_size: int = 1,
    texts: list[LabelledText] = TEXTS,
) -> Scorer:
    chosen = PRESETS[convention]
    return Scorer(
        text_model=classifier,
        plan=Plan.of(classifier, [item.text for item in texts], batch_size=batch_size),
        data=texts,
        metrics=bind(names, chosen),
        convention=chosen,
        search=SEARCH,
    )


def scores_of(plan: Plan, key: RunKey) -> dict[int, list[float]]:
    """Arbitrary scores by the texts' numbers, ties among them."""
    found = {}
    for place, index in enumerate(plan.indices):
        count = sum(plan.texts[place].maskable)
        generator = np.random.default_rng([len(key.method), key.seed, index])
        found[index] = (generator.integers(-8, 9, count) / 8).tolist()
    return found


def records(plan: Plan, key: RunKey) -> Iterator[dict[str, Any]]:
    for index in plan.indices:
        if index == FAILED and key.method == "other":
            yield {"index": index, "error": "it broke"}
        else:
            yield {"index": index, "scores": scores_of(plan, key)[index]}


def scored(used: Scorer, **files: Any) -> Scored:
    return used.score({key: records(used.plan, key) for key in KEYS}, **files)


class Call:
    """One text, in the form that metrics take."""

    def __init__(
        self, classifier: TextClassifier, item: LabelledText, values: list[float], preset: str
    ) -> None:
        self.text_model = classifier
        batch = classifier.collate(classifier.tokenize([item.text]))
        self.ids = batch.input_ids
        self.references = classifier.baselines(batch)
        self.args = batch.forward_args
        self.tokens = batch.maskable
        self.scores = torch.zeros(self.ids.shape, dtype=torch.float64)
        self.scores[batch.maskable] = torch.tensor(values, dtype=torch.float64)
        self.labels = metrics.rationale_labels(batch.texts[0].offsets, item.rationale or ())[None]
        self.preset = preset

    def of(self, called: Callable[..., Tensor], /, **options: Any) -> Tensor:
        return called(
            self.text_model,
            self.ids,
            self.scores,
            self.references,
            self.args,
            output="logits",
            **options,
        )

    def faithful(self, metric: Callable[..., Tensor], *, aopc: bool, **options: Any) -> Tensor:
        return self.of(metric, aopc=aopc, convention=self.preset, **options)

    def naopc(self, metric: str) -> Tensor:
        if int(self.tokens.sum()) > SEARCH.max_tokens:
            return torch.tensor([math.nan])
        return self.of(
            metrics.normalized_aopc, metric=metric, removal="delete", beam_size=SEARCH.beam_size
        )

    def area(self, curve: Callable[..., Tensor]) -> Tensor:
        removal = PRESETS[self.preset].removal
        return metrics.area_under_curve(self.of(curve, removal=removal, n_points=11))

    def soft(self, metric: Callable[..., Tensor]) -> Tensor:
        layer = self.text_model.embedding_layer
        return self.of(metric, embedding_layer=layer, n_samples=5, seed=0)

    def plausible(self, metric: Callable[..., Tensor], **options: Any) -> Tensor:
        return metric(self.scores, self.labels, tokens=self.tokens, **options)


DIRECT: dict[str, Callable[[Call], Tensor]] = {
    "aopc-comprehensiveness": lambda c: c.faithful(metrics.comprehensiveness, aopc=True),
    "aopc-sufficiency": lambda c: c.faithful(metrics.sufficiency, aopc=True),
    "aopc-log-odds": lambda c: c.faithful(metrics.log_odds, aopc=True),
    "normalized-aopc": lambda c: c.naopc("comprehensiveness"),
    "normalized-aopc-sufficiency": lambda c: c.naopc("sufficiency"),
    "comprehensiveness": lambda c: c.faithful(metrics.comprehensiveness, aopc=False),
    "sufficiency": lambda c: c.faithful(metrics.sufficiency, aopc=False),
    "log-odds": lambda c: c.faithful(metrics.log_odds, aopc=False),
    "deletion-auc": lambda c: c.area(metrics.deletion_curve),
    "insertion-auc": lambda c: c.area(metrics.insertion_curve),
    "soft-comprehensiveness": lambda c: c.soft(metrics.soft_comprehensiveness),
    "soft-sufficiency": lambda c: c.soft(metrics.soft_sufficiency),
    "auprc": lambda c: c.plausible(metrics.auprc),
    "average-precision": lambda c: c.plausible(metrics.average_precision),
    "token-f1": lambda c: c.plausible(metrics.token_f1),
    "iou-f1": lambda c: c.plausible(metrics.iou_f1),
    "recall-at-10": lambda c: c.plausible(metrics.recall_at_k, k=10),
    "entropy": lambda c: metrics.entropy(c.scores, tokens=c.tokens),
    "effective-tokens": lambda c: metrics.effective_tokens(c.scores, tokens=c.tokens),
    "aopc-sufficiency@pad": lambda c: c.faithful(metrics.sufficiency, aopc=True, removal="pad"),
    "log-odds@delete": lambda c: c.faithful(metrics.log_odds, aopc=False, removal="delete"),
}
# The model calculates in float32, and a batch in another order than a single text.
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 2e-5}
# Normalizing divides such a difference by the range that a text allows, a tenth or less.
CLOSE_NORMALIZED: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4}


class TestAgainstDirectCalls:
    def test_every_measure_is_among_them(self) -> None:
        assert {name for name in DIRECT if "@" not in name} == set(available_metrics())

    @pytest.mark.parametrize(
        ("preset", "names"),
        [
            ("default", list(DIRECT)),
            ("aml", ["aopc-sufficiency", "aopc-log-odds", "sufficiency", "deletion-auc"]),
        ],
    )
    def test_every_measure(self, classifier: TextClassifier, preset: str, names: list[str]) -> None:
        used = scorer(classifier, names, convention=preset)
        assert len(used.window_sizes) == 2, "so that windows count"
        found = scored(used)
        for key in KEYS:
            values = scores_of(used.plan, key)
            for index, item in enumerate(TEXTS):
                call = Call(classifier, item, values[index], preset)
                failed = key.method == "other" and index == FAILED
                for name in names:
                    expected = math.nan if failed else float(DIRECT[name](call))
                    close = CLOSE_NORMALIZED if name.startswith("normalized") else CLOSE
                    np.testing.assert_allclose(
                        found.values[key][name][index], expected, **close, err_msg=f"{name} {index}"
                    )

    def test_curves(self, classifier: TextClassifier) -> None:
        used = scorer(classifier, ["entropy"], batch_size=4)
        found = scored(used)
        for key in KEYS:
            values = scores_of(used.plan, key)
            for index, item in enumerate(TEXTS):
                call = Call(classifier, item, values[index], "default")
                expected = call.of(metrics.deletion_curve, n_points=11, removal="delete")[0]
                if key.method == "other" and index == FAILED:
                    expected = torch.full_like(expected, torch.nan)
                np.testing.assert_allclose(found.curves[key][index], expected, **CLOSE)

    def test_only_texts_with_a_rationale_are_plausible(self, classifier: TextClassifier) -> None:
        found = scored(scorer(classifier, ["auprc"]))
        given = found.values[KEYS[0]]["auprc"]
        assert np.isnan(given).tolist() == [False] * 5 + [True] * 2
        no_rationales = [LabelledText(item.text) for item in TEXTS]
        found = scored(scorer(classifier, ["auprc"], texts=no_rationales))
        assert np.isnan(found.values[KEYS[0]]["auprc"]).all()

    def test_a_given_class_is_explained(self, classifier: TextClassifier) -> None:
        used = scorer(classifier, ["comprehensiveness"])
        targets = [index % 2 for index in range(len(TEXTS))]
        given = Scorer(
            text_model=classifier,
            plan=used.plan,
            data=TEXTS,
            metrics=used.metrics,
            convention=used.convention,
            targets=targets,
        )
        found = scored(given).values[KEYS[0]]["comprehensiveness"]
        values = scores_of(used.plan, KEYS[0])
        for index, item in enumerate(TEXTS):
            call = Call(classifier, item, values[index], "default")
            expected = call.of(metrics.comprehensiveness, target=targets[index])
            np.testing.assert_allclose(found[index], float(expected), **CLOSE)

    def test_batches_change_nothing(self, classifier: TextClassifier) -> None:
        names = ["aopc-comprehensiveness", "normalized-aopc", "token-f1"]
        one = scored(scorer(classifier, names))
        other = scored(scorer(classifier, names, batch_size=3))
        for key in KEYS:
            for name in names:
                np.testing.assert_allclose(other.values[key][name], one.values[key][name], **CLOSE)
        assert other.n_searched == one.n_searched
        assert other.n_exact == one.n_exact


def test_padding_on_the_left_changes_nothing() -> None:
    texts = [
        LabelledText("a good film", rationale=((2, 6),)),
        LabelledText("the plot was very slow", rationale=((13, 22),)),
    ]
    names = ["aopc-comprehensiveness", "token-f1", "effective-tokens"]
    found = {}
    for side in ("left", "right"):
        classifier = tiny_classifier()
        classifier.tokenizer.padding_side = side
        found[side] = scored(scorer(classifier, names, texts=texts, batch_size=2))
    for name in names:
        for key in KEYS:
            np.testing.assert_allclose(
                found["left"].values[key][name], found["right"].values[key][name], **CLOSE
            )


def test_a_text_without_a_token_has_no_value() -> None:
    texts = [LabelledText("\u200b"), LabelledText("good film")]
    used = scorer(tiny_classifier(), ["comprehensiveness", "normalized-aopc"], texts=texts)
    for table in scored(used).values.values():
        for values in table.values():
            assert np.isnan(values[0])
            assert not np.isnan(values[1])


class TestFiles:
    """Values and limits that are on disk are not computed again."""

    @pytest.fixture
    def classifier(self) -> TextClassifier:
        return tiny_classifier()

    def scorer(self, classifier: TextClassifier, names: list[str]) -> Scorer:
        return scorer(classifier, names, texts=SHORT)

    def score(
        self,
        folder: Path,
        used: Scorer,
        *,
        keys: list[RunKey] = KEYS,
        stop_after: int | None = None,
    ) -> Scored:
        def told(_: int) -> None:
            nonlocal stop_after
            if stop_after is not None:
                stop_after -= 1
                if not stop_after:
                    raise KeyboardInterrupt

        ones = [1] * len(used.window_sizes)
        names = "-".join(entry.metric.name for entry in used.metrics)
        with BenchmarkFolder.open(folder, {}) as run:
            return used.score(
                {key: records(used.plan, key) for key in keys},
                values_file=lambda key: run.values_file(
                    f"{key.method}-{key.seed}-{names}", {}, used.plan.digest, ones
                ),
                limits_file=lambda removal: run.values_file(
                    f"limits-{removal.name}", {}, used.plan.digest, ones
                ),
                on_window=told,
            )

    def same(self, one: Scored, other: Scored) -> None:
        for key, table in one.values.items():
            for name, values in table.items():
                np.testing.assert_array_equal(values, other.values[key][name])
            np.testing.assert_array_equal(one.curves[key], other.curves[key])
        assert one.search_passes == other.search_passes
        assert (one.n_exact, one.n_searched) == (other.n_exact, other.n_searched)

    def test_a_second_scoring_runs_no_model(
        self, tmp_path: Path, classifier: TextClassifier, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        used = self.scorer(classifier, ["aopc-sufficiency", "normalized-aopc", "auprc"])
        first = self.score(tmp_path, used)
        passes = Passes(monkeypatch, classifier.model)
        again = self.score(tmp_path, used)
        assert passes.count == 0
        self.same(again, first)
        self.same(again, scored(used))

    def test_goes_on_after_an_interruption(
        self, tmp_path: Path, classifier: TextClassifier
    ) -> None:
        used = self.scorer(classifier, ["aopc-sufficiency", "normalized-aopc"])
        with pytest.raises(KeyboardInterrupt):
            self.score(tmp_path, used, stop_after=1)
        again = self.score(tmp_path, used)
        self.same(again, scored(used))

    def test_a_method_more_needs_no_search(
        self, tmp_path: Path, classifier: TextClassifier, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        used = self.scorer(classifier, ["normalized-aopc"])
        first = self.score(tmp_path, used, keys=KEYS[:2])
        monkeypatch.setattr(score, "limits_of", None)
        again = self.score(tmp_path, used)
        assert again.search_passes == first.search_passes > 0
        monkeypatch.undo()
        self.same(again, scored(used))


def test_what_the_search_did(classifier: TextClassifier) -> None:
    used = scorer(classifier, ["normalized-aopc"])
    sizes = [sum(text.maskable) for text in used.plan.texts]
    found = scored(used)
    assert found.n_exact == sum(size <= 8 for size in sizes) > 0
    assert found.n_searched == sum(size <= SEARCH.max_tokens for size in sizes) > found.n_exact
    assert found.n_searched < len(sizes)
    assert found.search_passes > 0


def test_the_same_input_passes_the_model_once(
    classifier: TextClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = scorer(classifier, ["aopc-comprehensiveness"], batch_size=50)
    passes = Passes(monkeypatch, classifier.model)
    used.score({KEYS[0]: records(used.plan, KEYS[0])})
    alone = passes.count
    copy = RunKey("copy", 0)
    passes.count = 0
    used.score({KEYS[0]: records(used.plan, KEYS[0]), copy: records(used.plan, KEYS[0])})
    assert passes.count == alone


def test_a_measure_of_the_user_s_own(
    classifier: TextClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    largest = Metric("largest", "Largest", None, "complexity", "The largest score.")

    @register_metric(largest)
    def compute(inputs: MetricInputs, scores: Tensor, *_: object) -> Tensor:
        return scores.masked_fill(~inputs.tokens, -9).amax(dim=1)

    used = scorer(classifier, ["largest"])
    assert isinstance(used.metrics[0], BoundMetric)
    expected = [max(values) for _, values in sorted(scores_of(used.plan, KEYS[0]).items())]
    assert scored(used).values[KEYS[0]]["largest"].tolist() == expected
