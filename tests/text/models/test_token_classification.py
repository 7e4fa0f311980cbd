"""Entities and chosen words, against transformers' pipeline and planted cues."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    BertForSequenceClassification,
    BertForTokenClassification,
    PreTrainedTokenizerFast,
    pipeline,
)

from captum_aml.exceptions import InvalidInputError, NonFiniteError
from captum_aml.text import Explanation, TextExplainer, TokenClassifier
from captum_aml.text.models.token_classification import Aggregation
from tests._helpers.text_models import bert_classifier, word_piece_tokenizer

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
TEXTS = [
    "the film was unbelievable , a great plot .",
    "a slow actor gripping unbelievable films !",
    "日本語 映画 unbelievably good",
    "",
]


def drawn_tagger(labels: tuple[str, ...] = LABELS) -> BertForTokenClassification:
    """Labels of all kinds next to each other, inside words, too."""
    config = bert_classifier(60, labels=labels).config
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(3)
        model = BertForTokenClassification(config).eval()
    torch.nn.init.zeros_(model.classifier.bias)
    return model


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return word_piece_tokenizer()


@pytest.mark.parametrize("labels", [LABELS, ("NOUN", "VERB", "O", "ADJ")])
@pytest.mark.parametrize("aggregation", ["first", "simple", "none"])
def test_entities_are_those_of_the_pipeline(
    tokenizer: PreTrainedTokenizerFast, aggregation: Aggregation, labels: tuple[str, ...]
) -> None:
    model = drawn_tagger(labels)
    ner = pipeline("ner", model=model, tokenizer=tokenizer, aggregation_strategy=aggregation)
    found = TokenClassifier(model, tokenizer, aggregation=aggregation).entities(TEXTS)
    n_found = 0
    for text, entities in zip(TEXTS, found, strict=True):
        theirs = [
            ((e.get("entity_group") or e["entity"]).removeprefix("B-").removeprefix("I-"),
             (e["start"], e["end"]))
            for e in (ner(text) if text else [])
        ]  # fmt: skip
        assert [(entity.label, entity.span) for entity in entities] == theirs
        n_found += len(theirs)
    assert n_found > 4


def test_each_entity_is_explained_and_a_text_without_one_is_not(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    made = TokenClassifier(drawn_tagger(), tokenizer, aggregation="simple")
    explanations = TextExplainer(made, method="occlusion")(TEXTS)
    expected = [(row, e.label, e.span) for row, es in enumerate(made.entities(TEXTS)) for e in es]
    assert [(e.row, e.target_label, e.place) for e in explanations] == expected
    assert all(e.predicted_label == e.target_label for e in explanations)
    assert {e.task for e in explanations} == {"token-classification"}
    assert not TextExplainer(made, method="occlusion")("")


def test_the_outcome_at_a_place_is_the_mean_of_its_tokens_tags(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    model, text = drawn_tagger(), "a slow unbelievable film"
    words = ("slow unbelievable",)
    found: dict[str, Explanation] = {}
    for aggregation in ("first", "simple"):
        made = TokenClassifier(model, tokenizer, aggregation=aggregation)
        (found[aggregation],) = TextExplainer(made, method="occlusion")(
            text, target={words[0]: None}
        )
    logits = model(**tokenizer(text, return_tensors="pt")).logits[0].detach()
    tags = torch.stack(
        [logits[:, 0], logits[:, 1:3].logsumexp(dim=1), logits[:, 3:].logsumexp(dim=1)], dim=1
    )
    # [CLS] a slow un ##believ ##able film [SEP]
    for aggregation, places in {"first": [2, 3], "simple": [2, 3, 4, 5]}.items():
        expected = tags[places].mean(dim=0).softmax(dim=0)
        explanation = found[aggregation]
        assert explanation.predicted == int(expected.argmax())
        assert explanation.probability == pytest.approx(float(expected.max()), abs=1e-6)
        assert explanation.about == words[0]


def test_words_characters_labels_and_contrasts_are_chosen(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    explainer = TextExplainer(drawn_tagger(), tokenizer, method="occlusion")
    text = "a film is a good film , filming"
    asked = [{"film": ["LOC", ("PER", "LOC")]}, {(7, 9): "O"}]
    explanations = explainer(text, target=asked)
    assert [(e.place, e.explained_label) for e in explanations] == [
        ((2, 6), "LOC"),
        ((2, 6), "PER rather than LOC"),
        ((17, 21), "LOC"),
        ((17, 21), "PER rather than LOC"),
        ((7, 9), "O"),
    ]
    # Of one method a contrast is the difference.
    both = explainer(text, target=[{(7, 9): ["PER", "LOC", ("PER", "LOC")]}])
    assert [e.target_label for e in both] == ["PER", "LOC", "PER"]
    of_entities = explainer(TEXTS[0], target="LOC")
    assert {e.target_label for e in of_entities} == {"LOC"}


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"plot": None}, r"target: expected words of the text 'a good film', got 'plot'"),
        ({"goo": None}, "target: expected words of the text"),
        ({(2, 90): None}, r"characters \(start, end\) of its 11, got \(2, 90\)"),
        ({(1, 2): None}, r"expected characters that the model sees, got ' ' at \(1, 2\)"),
        ({"film": "B-LOC"}, "target: expected one of the labels O, PER, LOC"),
        ("B-LOC", "target: expected one of the labels O, PER, LOC"),
    ],
)
def test_what_is_not_there_is_refused(
    tokenizer: PreTrainedTokenizerFast, target: str, message: str
) -> None:
    explainer = TextExplainer(drawn_tagger(), tokenizer, method="occlusion")
    with pytest.raises(InvalidInputError, match=message):
        explainer("a good film", target=target)


def test_words_that_were_cut_off_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    explainer = TextExplainer(drawn_tagger(), tokenizer, method="occlusion", max_length=4)
    with pytest.raises(InvalidInputError, match=r"got 'film' at .*; 1 tokens were cut off"):
        explainer("a good film", target={"film": None})


def test_given_words_have_the_label_of_their_first_token(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    model = drawn_tagger()
    words = ["a", "slow,unbelievable", "film"]
    entities = TokenClassifier(model, tokenizer).entities([words])[0]
    logits = model(**tokenizer(" ".join(words), return_tensors="pt")).logits[0]
    heads = [LABELS[int(logits[place].argmax())] for place in (1, 2, 7)]
    labelled = dict(zip(((0, 1), (2, 19), (20, 24)), heads, strict=True))
    for span, label in labelled.items():
        inside = [e for e in entities if e.span[0] <= span[0] and span[1] <= e.span[1]]
        assert [e.label for e in inside] == ([] if label == "O" else [label[2:]])


def test_no_entity_reaches_over_both_texts_of_a_pair(tokenizer: PreTrainedTokenizerFast) -> None:
    model = drawn_tagger(("THING", "OTHER"))
    torch.nn.init.constant_(model.classifier.bias[:1], 99.0)
    ((first, second),) = TokenClassifier(model, tokenizer).entities([("a film", "the plot")])
    assert (first.span, second.span) == ((0, 6), (7, 15))


def test_outputs_that_are_no_numbers_are_no_lack_of_entities(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    model = drawn_tagger()
    torch.nn.init.constant_(model.classifier.bias, torch.nan)
    with pytest.raises(NonFiniteError, match="for the text 'the film was"):
        TextExplainer(model, tokenizer)(TEXTS[:1])


def test_batches_are_as_texts_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    explainer = TextExplainer(drawn_tagger(), tokenizer, n_steps=4)
    alone = [e for text in TEXTS for e in explainer(text, target=["PER", ("PER", "LOC")])]
    together = explainer(TEXTS, target=[["PER", ("PER", "LOC")]] * len(TEXTS))
    assert len(alone) == len(together) > 4
    for one, other in zip(alone, together, strict=True):
        assert one.place == other.place
        assert one.scores == pytest.approx(other.scores, abs=1e-4)


def test_pipelines_and_folders(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    model = drawn_tagger()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    expected = TextExplainer(model, tokenizer, method="occlusion")(TEXTS)
    ner = pipeline("ner", model=model, tokenizer=tokenizer)
    assert TextExplainer(ner, method="occlusion")(TEXTS) == expected
    assert TextExplainer(tmp_path, method="occlusion", device="cpu")(TEXTS) == expected


def test_what_fits_no_token_classifier_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(InvalidInputError, match=r"aggregation: expected one of .*'max'"):
        TokenClassifier(drawn_tagger(), tokenizer, aggregation="max")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="ignore: expected a list of labels, got 'O'"):
        TokenClassifier(drawn_tagger(), tokenizer, ignore="O")
    other = TokenClassifier(BertForSequenceClassification(bert_classifier(60).config), tokenizer)
    with pytest.raises(InvalidInputError, match="got BertForSequenceClassification, which gives"):
        other.entities(["a film"])
    with pytest.raises(InvalidInputError, match="use entities"):
        other.predict(["a film"])


@pytest.mark.parametrize("method", ["integrated-gradients", "kernel-shap", "attention", "la-tuned"])
def test_every_family_of_methods_runs(tokenizer: PreTrainedTokenizerFast, method: str) -> None:
    explainer = TextExplainer(drawn_tagger(), tokenizer, method=method)
    (explanation,) = explainer("a good film", target={"film": "PER"})
    assert explanation.about == "film"
    assert any(explanation.scores)
