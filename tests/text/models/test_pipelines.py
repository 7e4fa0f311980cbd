"""Pipelines of transformers: their settings are those of the explanation, or a warning says not."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from transformers import (
    BertConfig,
    BertForTokenClassification,
    GenerationConfig,
    Pipeline,
    ViTConfig,
    ViTForImageClassification,
    pipeline,
)

from captum_aml.exceptions import InvalidInputError
from captum_aml.text import TextExplainer, TextModel
from tests._helpers.decoders import bpe_tokenizer, language_model
from tests._helpers.text_models import bert_classifier, word_piece_tokenizer

TOKENIZER = word_piece_tokenizer()
TEXT = "a good film"


def made(task: str, **settings: Any) -> Pipeline:
    model: Any
    if task == "text-generation":
        tokenizer = bpe_tokenizer(eos_token="</s>")
        model = language_model("llama", len(tokenizer))
        return pipeline(task, model, tokenizer=tokenizer, **settings)
    if task == "ner":
        sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
        names = {0: "O", 1: "B-PER", 2: "I-PER"}
        config = BertConfig(vocab_size=len(TOKENIZER), id2label=names, **sizes)
        return pipeline(task, BertForTokenClassification(config), tokenizer=TOKENIZER, **settings)
    model = bert_classifier(len(TOKENIZER))
    if task == "zero-shot-classification":
        model.config.id2label = {0: "entailment", 1: "contradiction"}
        model.config.label2id = {"entailment": 0, "contradiction": 1}
    return pipeline(task, model, tokenizer=TOKENIZER, **settings)


def explained_by(pipe: Pipeline) -> tuple[TextModel, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = TextExplainer(pipe, method="random").text_model
    return found, [str(w.message) for w in caught if "settings of the pipeline" in str(w.message)]


@pytest.mark.parametrize(
    ("task", "settings", "expected"),
    [
        ("text-classification", {"truncation": True, "max_length": 8}, {"max_length": 8}),
        ("text-generation", {"max_new_tokens": 3, "num_beams": 1}, {"max_new_tokens": 3}),
        (
            "text-generation",
            {"generation_config": GenerationConfig(max_new_tokens=2)},
            {"max_new_tokens": 2},
        ),
        (
            "ner",
            {"aggregation_strategy": "simple", "ignore_labels": []},
            {"aggregation": "simple", "ignore": ()},
        ),
        (
            "zero-shot-classification",
            {
                "candidate_labels": "good,bad",
                "hypothesis_template": "it is {}",
                "multi_label": True,
            },
            {"hypotheses": ("it is good", "it is bad"), "output": "independent_logits"},
        ),
    ],
)
def test_settings_are_read(task: str, settings: dict[str, Any], expected: dict[str, Any]) -> None:
    found, warned = explained_by(made(task, **settings))
    assert {name: getattr(found, name) for name in expected} == expected
    assert warned == []


@pytest.mark.parametrize(
    ("task", "settings", "named"),
    [
        ("text-classification", {"function_to_apply": "none", "top_k": None}, "function_to_apply"),
        ("ner", {"aggregation_strategy": "max"}, "aggregation_strategy='max'"),
        ("text-generation", {"num_beams": 4}, "num_beams=4"),
    ],
)
def test_those_that_are_not_used_are_named(task: str, settings: dict[str, Any], named: str) -> None:
    (message,) = explained_by(made(task, **settings))[1]
    assert named in message


def test_a_sigmoid_makes_labels_that_do_not_exclude_each_other() -> None:
    pipe = made("text-classification", function_to_apply="sigmoid", top_k=None)
    explanations = TextExplainer(pipe, method="random")(TEXT, target="all")
    shown = {each["label"]: each["score"] for each in pipe(TEXT)[0]}
    assert {e.target_label: e.target_probability for e in explanations} == pytest.approx(
        shown, abs=1e-5
    )


def test_a_model_of_images_is_named_with_what_explains_it() -> None:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = ViTForImageClassification(ViTConfig(image_size=8, patch_size=4, **sizes))
    with pytest.raises(InvalidInputError, match=r"which takes pixel_values; captum_aml\.AMLAttr"):
        TextExplainer(model, TOKENIZER)
