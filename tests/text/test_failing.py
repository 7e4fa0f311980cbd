"""A bad text among many: named, or passed over, with everything before it kept."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from captum_aml.exceptions import InvalidInputError, NonFiniteError
from captum_aml.text import Explanation, TextClassifier, TextExplainer
from captum_aml.text.failing import FailingTexts, windows
from captum_aml.text.inputs import Unreadable
from tests._helpers.text_models import bert_classifier, word_piece_tokenizer

GOOD = ["a good film", "the actor is great !", "not bad", "a very good film", "a film"]


class Classifier(TextClassifier):
    """The model has no finite output for "plot", and takes no "script"."""

    def forward(self, input_ids: Tensor, *args: Any) -> Tensor:
        plot, script = map(self.tokenizer.convert_tokens_to_ids, ("plot", "script"))
        if (input_ids == script).any():
            raise IndexError("index out of range in self")
        logits = super().forward(input_ids, *args)
        return logits.masked_fill((input_ids == plot).any(dim=1, keepdim=True), torch.nan)


@pytest.fixture(scope="module")
def explainer() -> TextExplainer:
    classifier = Classifier(bert_classifier(60), word_piece_tokenizer())
    return TextExplainer(classifier, method="occlusion", batch_size=3)


class TestSkip:
    def test_all_others_are_explained_as_they_are_alone(self, explainer: TextExplainer) -> None:
        texts = [
            *(None, GOOD[0], float("nan"), GOOD[1], "the plot is good", GOOD[2], 3, {"label": 1}),
            *(
                GOOD[3],
                "< script > good film",
                ("a", None),
                GOOD[4],
                ["a", 3],
                Unreadable("line 9"),
            ),
        ]
        where = "0, 2, 4, 6, 7, 9, 10, 12, 13; the first because of: .*got NoneType at position 0"
        with pytest.warns(UserWarning, match=f"9 of 14 texts .* at positions {where}"):
            found = explainer(texts, errors="skip")
        assert [e.text for e in found] == GOOD
        assert [e.row for e in found] == [1, 3, 5, 8, 11]
        for one, alone in zip(found, GOOD, strict=True):
            assert one.scores == pytest.approx(explainer(alone)[0].scores, abs=1e-6)

    def test_the_warning_names_ten(self, explainer: TextExplainer) -> None:
        with pytest.warns(
            UserWarning, match=r"^40 of 41 .* 7, 8, 9, \.\.\.; the first because of: "
        ):
            assert len(explainer([None] * 40 + ["good"], errors="skip")) == 1

    def test_nothing_to_skip(self, explainer: TextExplainer) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert explainer(GOOD, errors="skip") == explainer(GOOD)

    def test_targets_stay_with_their_texts(self, explainer: TextExplainer) -> None:
        with pytest.warns(UserWarning, match="1 of 3"):
            found = explainer(["good", None, "bad"], target=[1, 0, [0, 1]], errors="skip")
        assert [(e.row, e.target) for e in found] == [(0, 1), (2, 0), (2, 1)]

    def test_one_text(self, explainer: TextExplainer) -> None:
        with pytest.warns(UserWarning, match="1 of 1 texts"):
            assert explainer({"text": None}, errors="skip") == []

    def test_what_is_no_error_of_a_text(self, explainer: TextExplainer) -> None:
        with pytest.raises(InvalidInputError, match="errors: expected 'raise' or 'skip', got 'no'"):
            explainer.stream(["good"], errors="no")  # type: ignore[arg-type]
        with pytest.raises(InvalidInputError, match=r"target: .* got fewer"):
            explainer(iter(GOOD), target=[0, 1], errors="skip")
        with pytest.raises(ImportError):
            FailingTexts("skip").attempt([0, 1], [0, 1], missing)


class TestRaise:
    @pytest.mark.parametrize(
        ("bad", "error", "message"),
        [
            (None, InvalidInputError, "expected strings, got NoneType at position 4$"),
            ("the plot is good", NonFiniteError, "NaN .*'the plot is good', at position 4$"),
            ("script", IndexError, "index out of range in self, at position 4$"),
        ],
    )
    def test_what_was_done_before_is_given(
        self, explainer: TextExplainer, bad: Any, error: type[Exception], message: str
    ) -> None:
        found: list[Explanation] = []
        with pytest.raises(error, match=message):
            found.extend(explainer.stream([*GOOD[:4], bad, "script", None, *GOOD]))
        assert [e.text for e in found] == GOOD[:4]

    def test_a_source_that_breaks_off(self, explainer: TextExplainer) -> None:
        def broken() -> Iterator[Any]:
            yield from [*GOOD, None]
            raise OSError("the disk is gone")

        found: list[Explanation] = []
        explanations = explainer.stream(broken(), errors="skip")
        with (
            pytest.warns(UserWarning, match="1 of 6"),
            pytest.raises(OSError, match="the disk is gone"),
        ):
            found.extend(explanations)
        assert [e.text for e in found] == GOOD


def missing(numbers: Sequence[int]) -> list[int]:
    raise ImportError


def test_halves_find_the_text_that_fails() -> None:
    runs: list[list[int]] = []

    def double(numbers: Sequence[int]) -> list[int]:
        runs.append(list(numbers))
        if 20 in numbers:
            raise ValueError("20")
        return [2 * number for number in numbers]

    order = [7, 20, *range(21, 51), *range(7), *range(8, 20)]
    failing = FailingTexts("skip")
    results = failing.attempt(order, range(100), double)
    assert results == {number: 2 * number for number in order if number != 20}
    assert len(runs) <= 2 * 6 + 1
    runs.clear()
    assert failing.attempt(order, range(100), double) == results, "it is not tried again"
    assert len(runs) == 1
    # With "raise", what comes behind the text that fails does not matter.
    failing = FailingTexts("raise")
    found = failing.attempt(order, range(100), double)
    assert set(range(7)) <= set(found) <= set(order) - {20}
    assert not any(failing.passes_over(row) for row in range(20))
    with pytest.raises(ValueError, match=r"^20, at position 20$"):
        failing.passes_over(20)


def test_a_batch_that_is_too_large() -> None:
    def pairs(numbers: Sequence[int]) -> list[int]:
        if len(numbers) > 2:
            raise RuntimeError("out of memory")
        return list(numbers)

    assert FailingTexts("skip").attempt(range(7), range(7), pairs) == {i: i for i in range(7)}
    with pytest.raises(RuntimeError, match=r"^out of memory$"):
        FailingTexts("raise").attempt(range(7), range(7), pairs)


def test_windows_are_read_as_they_are_taken() -> None:
    assert list(windows(range(5), 2)) == [([0, 1], None), ([2, 3], None), ([4], None)]
    assert list(windows(range(4), 2)) == [([0, 1], None), ([2, 3], None)]
    assert list(windows([], 2)) == []
    source = iter(range(100))
    next(windows(source, 3))
    assert next(source) == 3
