"""Contexts with options, in the forms in which they are given."""

from __future__ import annotations

from typing import Any

import pytest

from captum_aml.exceptions import InvalidInputError
from captum_aml.text.encoding import tokenize
from captum_aml.text.inputs import Text, each_text, given_texts
from tests._helpers.text_models import word_piece_tokenizer


@pytest.mark.parametrize(
    "given",
    [
        ("a", "b c", ["d", "e"]),
        {"article": "a", "question": "b c", "options": ["d", "e"], "answer": "A"},
        {"sent1": "a", "sent2": "b c", "ending1": "e", "ending0": "d", "label": 1},
        {"context": "a", "question": "b c", "choices": {"text": ["d", "e"], "label": ["A", "B"]}},
    ],
)
def test_context_question_and_options(given: Any) -> None:
    text = Text.of(given)
    assert text.pieces == ("a", "b c", "d", "e")
    assert text.n_options == 2
    assert given_texts(given).is_one


def test_a_context_alone_and_rows_of_a_table() -> None:
    table = {"premise": ["a", "b"], "choice1": ["c", "e"], "choice2": ["d", "f"], "label": [0, 1]}
    for texts in ([("a", ["c", "d"]), ("b", ["e", "f"])], table):
        assert [text.pieces for text in each_text(texts)] == [("a", "c", "d"), ("b", "e", "f")]


def test_options_stand_beside_their_context() -> None:
    (text,), is_one = given_texts("a", ["c", "d"])
    assert is_one
    assert Text.of(text).pieces == ("a", "c", "d")


def test_pairs_and_words_are_no_options() -> None:
    assert Text.of(("a", "b")).n_options == Text.of(["a", "b"]).n_options == 0
    assert Text.of({"premise": "a", "hypothesis": "b"}).pieces == ("a", "b")
    with pytest.raises(InvalidInputError, match="texts:"):
        Text.of(("a", ["only one"]))


def test_a_classifier_has_no_use_for_options() -> None:
    with pytest.raises(InvalidInputError, match="multiple-choice model"):
        tokenize(word_piece_tokenizer(), [("a film", ["good", "bad"])])
