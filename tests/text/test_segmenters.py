"""Segmenters by name; those whose package is not installed are skipped."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from captum_aml.exceptions import InvalidInputError
from captum_aml.text import TextExplainer
from captum_aml.text.grouping import unit_spans
from captum_aml.text.inputs import Text
from captum_aml.text.segmenters import located, segmenter_named
from tests._helpers.additive import additive_classifier

CHINESE = "我来到北京清华大学, hello\n 他说: 3.5元!"
JAPANESE = "今日は良い天気です。  東京に\n住む, OK?"
THAI = "ฉันรักภาษาไทย เพราะ 3.5 บาท"
WORDS = {
    "jieba": (CHINESE, ["来到", "北京", "清华大学", "hello", "3.5", "!"]),
    "fugashi": (JAPANESE, ["今日", "は", "天気", "。", "東京", "OK", "?"]),
    "janome": (JAPANESE, ["今日", "は", "天気", "。", "東京", "OK", "?"]),
    "pythainlp": (THAI, ["ฉัน", "รัก", "ภาษาไทย", "เพราะ", "3.5", "บาท"]),
}


@pytest.mark.parametrize("name", WORDS)
def test_words_and_exact_spans(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    text, words = WORDS[name]
    spans = segmenter_named(name)(text)
    found = [text[start:end] for start, end in spans]
    assert set(words) <= set(found)
    assert "".join(found) == "".join(text.split())  # everything but white space, once and in order
    assert unit_spans(Text(text, (), None), "word", name) == list(spans)
    assert segmenter_named(name)("") == segmenter_named(name)(" \n") == []
    model, tokenizer = additive_classifier({"hello": [1.0]})
    explanation = TextExplainer(
        model, tokenizer, method="occlusion", unit="sentence+word", segmenter=name
    )(text)[0]
    assert explanation.settings["segmenter"] == name
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", WORDS)
def test_a_package_that_is_not_installed_is_named(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    model, tokenizer = additive_classifier({"hello": [1.0]})
    with pytest.raises(ImportError, match=f"segmenter='{name}' needs {name}, .*pip install {name}"):
        TextExplainer(model, tokenizer, unit="word", segmenter=name)


def test_wrong_names() -> None:
    model, tokenizer = additive_classifier({"hello": [1.0]})
    with pytest.raises(
        InvalidInputError, match=r"segmenter: expected one of jieba, .*, got 'spacy'"
    ):
        TextExplainer(model, tokenizer, unit="word", segmenter="spacy")
    with pytest.raises(
        InvalidInputError, match=r"expected a function .* 'jieba', which finds words"
    ):
        TextExplainer(model, tokenizer, unit="sentence", segmenter="jieba")


def test_pieces_that_are_not_in_the_text_are_left_out() -> None:
    assert located("ab  cd e", ["ab", " ", "cd", "", "e"]) == [(0, 2), (4, 6), (7, 8)]
    # "X" is a changed "b", and "d" does not follow "a".
    assert located("abcd", ["a", "X", "d"]) == [(0, 1)]
