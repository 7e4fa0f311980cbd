"""The plan: fixed by the texts alone."""

from __future__ import annotations

from itertools import chain

import pytest

from captum_aml.benchmark.plan import Plan, ranges
from captum_aml.text import TextClassifier
from tests._helpers.benchmark_runs import tiny_classifier

TEXTS = ["a good film", "bad", "the plot was slow", "good", "not very good", "awful film", "a film"]


@pytest.fixture(scope="module")
def classifier() -> TextClassifier:
    return tiny_classifier()


def test_shortest_first_and_the_data_s_order_among_equals(classifier: TextClassifier) -> None:
    plan = Plan.of(classifier, TEXTS, batch_size=2)
    assert list(plan.indices) == [1, 3, 5, 6, 0, 4, 2]
    assert [text.text for text in plan.texts] == [TEXTS[i] for i in plan.indices]


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 17])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 50])
def test_batches_and_windows_hold_every_text_once(
    classifier: TextClassifier, n: int, batch_size: int
) -> None:
    plan = Plan.of(classifier, ["a film"] * n, batch_size=batch_size)
    for sizes, most in ((plan.batch_sizes, batch_size), (plan.window_sizes, 4 * batch_size)):
        assert list(chain(*ranges(sizes))) == list(range(n))
        assert all(size == most for size in sizes[:-1])
        assert 1 <= sizes[-1] <= most
    # A window begins where a batch does.
    starts = {places.start for places in ranges(plan.batch_sizes)}
    assert {places.start for places in ranges(plan.window_sizes)} <= starts


def test_the_digest_says_which_texts_in_which_order(classifier: TextClassifier) -> None:
    digest = Plan.of(classifier, TEXTS, batch_size=2).digest
    assert Plan.of(classifier, TEXTS, batch_size=2).digest == digest
    others = [TEXTS[:-1], [*TEXTS[:-1], "a plot"], TEXTS[::-1], [TEXTS[3], TEXTS[1], *TEXTS]]
    assert digest not in {Plan.of(classifier, texts, batch_size=2).digest for texts in others}


def test_the_same_after_loading_the_tokenizer_anew() -> None:
    one, other = (Plan.of(tiny_classifier(), TEXTS, batch_size=2) for _ in range(2))
    assert one == other
