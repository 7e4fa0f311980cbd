"""Explanations made elsewhere get the figures that the benchmark gives its own."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from captum_aml.benchmark import BenchmarkResults, BenchmarkSettings
from captum_aml.benchmark.evaluate import evaluate_explanations
from captum_aml.benchmark.explanations import GivenExplanation, read_explanations
from captum_aml.benchmark.run import run_benchmark
from captum_aml.exceptions import InvalidInputError
from captum_aml.metrics import LimitSearch
from captum_aml.text import LabelledText, TextClassifier, TextExplainer, write_explanations
from tests._helpers.benchmark_runs import reviews, reviews_classifier, tiny_classifier

SETTINGS = BenchmarkSettings(
    methods=[],
    metrics=["aopc-comprehensiveness", "normalized-aopc", "log-odds", "token-f1", "entropy"],
    batch_size=2,
    search=LimitSearch(beam_size=2, max_tokens=8),
)
TEXTS = ["a good film", "bad plot", "not very good"]


@pytest.fixture(scope="module")
def tiny() -> TextClassifier:
    return tiny_classifier()


def given(
    text: str,
    scores: list[float],
    *,
    method: str | None = "m",
    seed: int | None = None,
    target: int | str | None = None,
    **fields: Any,
) -> GivenExplanation:
    """Scores of a text's words."""
    spans, start = [], 0
    for word in text.split():
        begin = text.index(word, start)
        start = begin + len(word)
        spans.append((begin, start))
    return GivenExplanation(
        LabelledText(text, **fields), tuple(spans), tuple(scores), method, seed, target
    )


def evaluate(
    classifier: TextClassifier, explanations: list[GivenExplanation], **changed: Any
) -> BenchmarkResults:
    settings = BenchmarkSettings(
        **{"metrics": ["aopc-comprehensiveness", "entropy"], "batch_size": 2, **changed}
    )
    return evaluate_explanations(classifier, explanations, settings)


def means(results: BenchmarkResults) -> dict[str, dict[str, float]]:
    return {row.method: {n: c.mean for n, c in row.cells.items()} for row in results.rows}


def test_our_own_explanations_get_the_benchmark_s_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cost_figure", "removal_figure"):
        monkeypatch.setattr(f"captum_aml.benchmark.report.page.{name}", lambda *_, **__: "")
    classifier, items = reviews_classifier(), reviews(4)
    path = tmp_path / "occlusion.jsonl"
    texts = [item.text for item in items]
    write_explanations(path, TextExplainer(classifier, method="occlusion").stream(texts))
    # What `explain` is not told: the rationales.
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for row, item in zip(rows, items, strict=True):
        row["rationale"] = item.rationale
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    ours = evaluate_explanations(classifier, read_explanations(path), SETTINGS)
    bench = run_benchmark(classifier, items, tmp_path / "out", SETTINGS)
    (row,) = ours.rows
    (expected,) = (row for row in bench.rows if row.method == "occlusion")
    assert set(row.cells) == set(SETTINGS.metrics or ())
    for name, cell in row.cells.items():
        wanted = expected.cells[name]
        assert (cell.mean, cell.low, cell.high) == pytest.approx(
            (wanted.mean, wanted.low, wanted.high), abs=1e-5
        )
        assert cell.n == wanted.n
    assert ours.curves[0].probabilities == pytest.approx(
        next(c.probabilities for c in bench.curves if c.method == "occlusion"), abs=1e-5
    )
    assert ours.fingerprints["model"] == bench.fingerprints["model"]


def test_scores_of_words_go_to_each_of_a_word_s_tokens(tiny: TextClassifier) -> None:
    text = "unbelievable film"
    (tokenized,) = tiny.tokenize([text])
    assert sum(tokenized.maskable) == 4, "un ##believ ##able film"
    words = evaluate(tiny, [given(text, [0.5, 0.25])])
    offsets = ((0, 2), (2, 8), (8, 12), (13, 17))
    tokens = GivenExplanation(LabelledText(text), offsets, (0.5, 0.5, 0.5, 0.25), "m", None, None)
    assert means(words) == means(evaluate(tiny, [tokens]))
    shares = [0.5 / 1.75] * 3 + [0.25 / 1.75]
    assert means(words)["m"]["entropy"] == pytest.approx(-sum(p * math.log(p) for p in shares))
    (card,) = words.examples
    assert list(card.rows[0].scores) == [0.5, 0.5, 0.5, 0.25]


def test_a_text_that_a_method_leaves_out_is_its_failure(tiny: TextClassifier) -> None:
    results = evaluate(
        tiny,
        [
            given(TEXTS[0], [0.1, 0.9, 0.2]),
            given(TEXTS[1], [0.1, 0.9]),
            given(TEXTS[1], [0.3, 0.2], method="other"),
        ],
    )
    rows = {row.method: row for row in results.rows}
    assert not rows["m"].failures
    (failure,) = rows["other"].failures
    assert (failure.index, failure.message) == (0, "no explanation given")
    assert rows["other"].cells["entropy"].n == 1
    assert results.n_texts == 2


def test_seeds_are_one_row(tiny: TextClassifier) -> None:
    results = evaluate(
        tiny, [given(TEXTS[1], scores, seed=s) for s, scores in enumerate(([1.0, 0.0], [1.0, 1.0]))]
    )
    (row,) = results.rows
    assert row.seeds == [0, 1]
    assert row.cells["entropy"].mean == pytest.approx(math.log(2) / 2)


def test_what_a_report_says_of_them(tiny: TextClassifier) -> None:
    results = evaluate(tiny, [given(TEXTS[0], [0.1, 0.9, 0.2], method=None)])
    (row,) = results.rows
    assert (row.method, row.role) == ("given", "baseline")
    assert math.isnan(row.cost.forward_passes)
    assert row.cost.peak_memory_mib is None
    assert "nothing is known of their cost" in results.notes[0]
    words = " ".join(results.protocol)
    assert "Cost" not in words
    assert "Learned methods" not in words
    assert "seeds" not in results.settings


class TestExplainedClass:
    def test_the_predicted_one_unless_told_otherwise(self, tiny: TextClassifier) -> None:
        scores = [0.1, 0.9, 0.2]
        predicted = int(tiny.predict(TEXTS[:1])[0].argmax())
        told = evaluate(tiny, [given(TEXTS[0], scores, target=predicted)])
        untold = evaluate(tiny, [given(TEXTS[0], scores)])
        other = evaluate(tiny, [given(TEXTS[0], scores, target=1 - predicted)])
        assert means(told) == means(untold)
        # What one of two classes loses the other one gains.
        name = "aopc-comprehensiveness"
        assert means(other)["m"][name] == pytest.approx(-means(told)["m"][name], abs=1e-6)
        label = tiny.label_names[1 - predicted]
        named = evaluate(tiny, [given(TEXTS[0], scores, target=label)])
        assert means(named) == means(other)
        assert other.examples[0].rows[0].target == label

    def test_another_one_of_the_same_text(self, tiny: TextClassifier) -> None:
        explanations = [
            given(TEXTS[1], [1.0, 0.0], target=0),
            given(TEXTS[1], [1.0, 0.0], target=1, method="other"),
        ]
        with pytest.raises(InvalidInputError, match="target: expected one class for all"):
            evaluate(tiny, explanations)

    def test_of_some_texts_only(self, tiny: TextClassifier) -> None:
        explanations = [given(TEXTS[1], [1.0, 0.0], target=0), given(TEXTS[0], [1.0, 0.0, 0.5])]
        with pytest.raises(InvalidInputError, match=r"for every text or for none.*'a good film'"):
            evaluate(tiny, explanations)

    @pytest.mark.parametrize("unknown", ["happy", 2])
    def test_that_the_model_does_not_have(self, tiny: TextClassifier, unknown: int | str) -> None:
        with pytest.raises(InvalidInputError, match="target: expected"):
            evaluate(tiny, [given(TEXTS[1], [1.0, 0.0], target=unknown)])


class TestMistakes:
    def test_a_label_that_the_model_does_not_have(self, tiny: TextClassifier) -> None:
        with pytest.raises(InvalidInputError, match="label: expected one of the model's classes"):
            evaluate(tiny, [given(TEXTS[1], [1.0, 0.0], label="happy")])

    def test_nothing_to_score(self, tiny: TextClassifier) -> None:
        with pytest.raises(InvalidInputError, match="explanations: expected one or more"):
            evaluate(tiny, [])

    def test_no_metric(self, tiny: TextClassifier) -> None:
        with pytest.raises(InvalidInputError, match="metrics: expected at least one"):
            evaluate(tiny, [given(TEXTS[1], [1.0, 0.0])], metrics=[])

    def test_a_text_twice(self, tiny: TextClassifier) -> None:
        twice = [given(TEXTS[1], [1.0, 0.0], seed=seed) for seed in (0, None)]
        with pytest.raises(InvalidInputError, match=r"two by 'm' for 'bad plot'.*field 'id'"):
            evaluate(tiny, twice)

    def test_equal_texts_are_told_apart_by_their_ids(self, tiny: TextClassifier) -> None:
        results = evaluate(tiny, [given(TEXTS[1], [1.0, 0.0], id=name) for name in ("a", "b")])
        assert results.n_texts == 2
        assert results.rows[0].cells["entropy"].n == 2
