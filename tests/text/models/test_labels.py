"""Names of classes: what configurations hold, and what users choose by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from captum_aml.benchmark.plan import label_indices
from captum_aml.exceptions import InvalidInputError
from captum_aml.text import Explanation, TextClassifier, TextExplainer, write_explanations
from captum_aml.text.data import LabelledText
from captum_aml.text.models.labels import class_index, class_names
from tests._helpers.text_models import bert_classifier, word_piece_tokenizer

#: What ``id2label`` holds, the names of three outputs, and what the last of them is chosen by.
NAMES: list[tuple[dict[int, object], tuple[str, ...], str]] = [
    ({0: 1, 1: 2, 2: 3}, ("1", "2", "3"), "3"),
    ({0: 0.5, 1: True, 2: None}, ("0.5", "True", "LABEL_2"), "LABEL_2"),
    ({0: "a", 1: "b"}, ("a", "b", "LABEL_2"), "LABEL_2"),
    ({0: "a"}, ("a", "LABEL_1", "LABEL_2"), "LABEL_2"),
    ({0: "a", 1: "b", 2: "c", 3: "d"}, ("a", "b", "c"), "c"),
    ({0: "bad", 1: "good", 2: "bad"}, ("bad (0)", "good", "bad (2)"), "bad (2)"),
    ({0: "", 1: " ", 2: "a\n b"}, ("LABEL_0", "LABEL_1", "a b"), "a\n b"),
]


def classifier(names: Mapping[int, object]) -> TextClassifier:
    """A classifier of three classes whose configuration holds these names."""
    tokenizer = word_piece_tokenizer()
    model = bert_classifier(len(tokenizer), labels=("x", "y", "z"))
    model.config.id2label = dict(names)
    return TextClassifier(model, tokenizer)


@pytest.mark.parametrize(("names", "written", "last"), NAMES)
def test_every_display_and_choice_has_the_names(
    names: dict[int, object], written: tuple[str, ...], last: str, tmp_path: Path
) -> None:
    explainer = TextExplainer(classifier(names), method="occlusion")
    assert explainer.text_model.label_names == written
    (explanation,) = explainer("a good film", target=last)
    assert (explanation.target, explanation.target_label) == (2, written[2])
    assert explanation == explainer("a good film", target=2)[0]
    assert explanation.predicted_label == written[explanation.predicted]
    assert Explanation.from_dict(json.loads(json.dumps(explanation.to_dict()))) == explanation
    assert written[2] in explanation.to_html()
    assert explanation.to_captum().attr_class == written[2]
    explanation.show()
    explanation.plot()
    for ending in ("csv", "tsv", "md", "txt", "html", "jsonl"):
        assert write_explanations(tmp_path / f"x.{ending}", [explanation]) == 1
    assert written[2] in (tmp_path / "x.csv").read_text()
    assert label_indices([LabelledText("a good film", last)], written) == [2]


def test_a_name_of_several_classes_names_their_indices() -> None:
    model = classifier({0: "bad", 1: "good", 2: "bad"})
    with pytest.raises(InvalidInputError, match=r"classes 0 and 2, .* 'bad'.*'bad \(0\)'"):
        class_index("bad", model.label_names)
    with pytest.raises(InvalidInputError, match=r"'bad \(0\)'.*'bad \(2\)'.*got 'bad'"):
        label_indices([LabelledText("t", "bad")], model.label_names)


def test_an_index_out_of_range_says_which_class_has_that_name() -> None:
    with pytest.raises(InvalidInputError, match=r"\(1, 2, 3\), got 3; .*name is target='3'"):
        class_index(3, classifier({0: 1, 1: 2, 2: 3}).label_names)


def test_the_number_of_names_decides_no_task() -> None:
    tokenizer = word_piece_tokenizer()
    single = bert_classifier(len(tokenizer), labels=("score",))
    single.config.id2label = {0: "a", 1: "b"}
    assert TextExplainer(single, tokenizer).text_model.task == "text-regression"
    several = bert_classifier(len(tokenizer), labels=("x", "y", "z"))
    several.config.id2label = {0: "a"}
    assert TextExplainer(several, tokenizer).text_model.task == "text-classification"
    with pytest.raises(InvalidInputError, match="expected one with a single output, got 3"):
        TextExplainer(several, tokenizer, task="text-regression")


def test_a_name_with_an_index_may_be_anothers() -> None:
    names = class_names(["a", "a", "a (0)", "a (0) (0)"], 4)
    assert len(set(names)) == 4
    assert class_names(["a (1)", "a", "a"], 3) == ("a (1) (0)", "a (1) (1)", "a (2)")


def test_names_by_something_else_than_indices() -> None:
    with pytest.raises(InvalidInputError, match=r"id2label that gives a name for each index"):
        class_names({"bad": 0}, 2)
