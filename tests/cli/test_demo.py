"""The demonstration, over few reviews."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from captum_aml import methods
from captum_aml.cli import demo
from captum_aml.reviews import load_reviews_classifier, load_reviews_splits
from captum_aml.text import TextClassifier, TextExplainer
from tests._helpers.command_line import Run

N_SCORED = 4


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_N_SCORED", N_SCORED)


def test_the_unprepared_call_stands_beside_the_others() -> None:
    assert {method for method, _, _ in demo.METHODS.values()} >= {
        "mask-gradient",
        "aml",
        "la",
        "ig",
    }
    for method, fitted, _ in demo.METHODS.values():
        assert methods.spec(method).takes_masker or not fitted


@pytest.mark.usefixtures("few")
def test_every_method_explains_the_same_texts(run: Run, tmp_path: Path) -> None:
    result = run("demo", "--texts", "2", "--output", str(tmp_path / "page.html"))
    assert result.code == 0, result.err
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for label in demo.METHODS:
        # Once with each text, and in the table.
        assert len(re.findall(rf"{re.escape(label)}(?:  | │)", result.out)) == 3
        assert page.count(f">{label}<") == 3


@pytest.mark.usefixtures("few")
def test_the_table_against_a_naive_count() -> None:
    labels: list[str] = []
    cards, table = demo.run_demo(n_shown=1, seed=0, on_method=labels.append)
    assert labels == list(demo.METHODS)
    assert [row.method for row in cards[0].rows] == labels
    rows = {label: (float(rate), found) for label, rate, found, _ in table.rows}
    assert list(rows) == [*labels, "Random ranking"]
    reviews = load_reviews_splits().test[:N_SCORED]
    for label in ("AML, nothing prepared", "Integrated Gradients"):
        model = TextClassifier(*load_reviews_classifier())
        explainer = TextExplainer(model, method=demo.METHODS[label][0])
        rates = []
        for review in reviews:
            (explanation,) = explainer(review.text)
            # Tokens are words here.
            best = {word for word, _ in explanation.top(len(review.deciding))}
            rates.append(len(best & set(review.deciding_words)) / len(review.deciding))
        assert rows[label][0] == pytest.approx(sum(rates) / N_SCORED, abs=1e-3)
        assert rows[label][1] == f"{rates.count(1) / N_SCORED:.1%}"
    assert 0 < rows["Random ranking"][0] < 0.3
