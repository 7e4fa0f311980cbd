"""Texts of a benchmark: their order, labels and fingerprint."""

from __future__ import annotations

from itertools import chain

import pytest

from captum_aml.benchmark.plan import Plan, data_fingerprint, label_indices, ranges
from captum_aml.exceptions import InvalidInputError
from captum_aml.text import LabelledText, TextClassifier
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


class TestFingerprint:
    def test_what_it_depends_on(self) -> None:
        item = LabelledText("ab", 1, ((0, 1),), "x")
        others = [
            LabelledText("ac", 1, ((0, 1),)),
            LabelledText("ab", 0, ((0, 1),)),
            LabelledText("ab", "1", ((0, 1),)),
            LabelledText("ab", None, ((0, 1),)),
            LabelledText("ab", 1, ((0, 2),)),
            LabelledText("ab", 1, ()),
            LabelledText("ab", 1),
        ]
        assert len({data_fingerprint([i]) for i in [item, *others]}) == 1 + len(others)
        assert data_fingerprint([item]) == data_fingerprint([LabelledText("ab", 1, ((0, 1),))])

    def test_order_and_boundaries_matter(self) -> None:
        a, b = LabelledText("a"), LabelledText("b")
        digests = [data_fingerprint(texts) for texts in ([a, b], [b, a], [a], [a, a], [])]
        assert len(set(digests)) == 5

    def test_any_string_has_one(self) -> None:
        assert len(data_fingerprint([LabelledText("\ud83d")])) == 64

    def test_it_stays_the_same(self) -> None:
        # hashlib.sha256(b'["\\u00e9", 1, [[0, 1]]]\n')
        assert data_fingerprint([LabelledText("é", 1, ((0, 1),))]) == (
            "b09aeb75b576901f7160d314e332ab315b3722c409c4a2c6f0b9361f50e092cf"
        )


class TestLabelIndices:
    @pytest.mark.parametrize(
        ("label", "names", "index"),
        [
            (None, ["a", "b"], None),
            (1, ["a", "b"], 1),
            ("b", ["a", "b"], 1),
            ("B", ["a", "b"], 1),
            ("A", ["a", "A"], 1),
            ("1", ["a", "b"], 1),
            ("1", ["1", "2"], 0),
            (1, ["1", "2"], 1),
            ("STRASSE", ["x", "straße"], 1),
        ],
    )
    def test_names_and_indices(
        self, label: int | str | None, names: list[str], index: int | None
    ) -> None:
        assert label_indices([LabelledText("t", label)], names) == [index]

    @pytest.mark.parametrize("label", [2, -1, "c", "2", "-1", "", "٢", "9" * 5000])
    def test_labels_that_the_model_does_not_have(self, label: int | str) -> None:
        texts = [LabelledText("t", "a"), LabelledText("t", label)]
        with pytest.raises(InvalidInputError, match=r"0 \('a'\), 1 \('b'\), got .* for text 2$"):
            label_indices(texts, ["a", "b"])

    def test_capitals_that_could_mean_two(self) -> None:
        with pytest.raises(InvalidInputError, match="got 'nO' for text 1"):
            label_indices([LabelledText("t", "nO")], ["no", "No"])
