"""Labelled texts in a benchmark: their fingerprint, and their labels as classes."""

from __future__ import annotations

import pytest

from captum_aml.benchmark.data import data_fingerprint, label_indices
from captum_aml.exceptions import InvalidInputError
from captum_aml.text import LabelledText


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
