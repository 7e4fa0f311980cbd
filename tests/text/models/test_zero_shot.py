"""Zero-shot classification: predictions of transformers' pipeline, hypotheses that stay."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    pipeline,
)

from captum_aml.exceptions import InvalidInputError
from captum_aml.text import TextClassifier, TextExplainer, ZeroShotClassifier
from tests._helpers.text_models import bert_classifier, word_piece_tokenizer

TOKENIZER = word_piece_tokenizer()
LABELS = ["good", "bad plot", "slow"]
TEXTS = ["the film was great", "a gripping plot, but very slow at first!"]


def nli_model(
    names: tuple[str, ...] = ("contradiction", "neutral", "entailment"),
) -> BertForSequenceClassification:
    return bert_classifier(len(TOKENIZER), labels=names)


def of_pipeline(model: Any, text: str, **options: Any) -> list[float]:
    """The pipeline's scores, in the order of the labels."""
    pipe = pipeline("zero-shot-classification", model=model, tokenizer=TOKENIZER)
    found = pipe(text, LABELS, **options)
    return [found["scores"][found["labels"].index(label)] for label in LABELS]


@pytest.mark.parametrize("names", [("contradiction", "neutral", "entailment"), ("Entail", "not")])
@pytest.mark.parametrize("multi_label", [False, True])
def test_predictions_are_those_of_the_pipeline(names: tuple[str, ...], multi_label: bool) -> None:
    model = nli_model(names)
    long = " ".join([*TEXTS, *TEXTS * 8])  # longer than the model takes
    text_model = ZeroShotClassifier(model, TOKENIZER, None, LABELS, multi_label=multi_label)
    expected = [of_pipeline(model, t, multi_label=multi_label) for t in (*TEXTS, long)]
    torch.testing.assert_close(text_model.predict([*TEXTS, long]), torch.tensor(expected))
    template = "the film was {label}!"
    by_template = ZeroShotClassifier(model, TOKENIZER, template, LABELS)
    wanted = of_pipeline(model, TEXTS[0], hypothesis_template="the film was {}!")
    torch.testing.assert_close(by_template.predict(TEXTS[0])[0], torch.tensor(wanted))


def test_a_pipeline_is_explained_over_its_labels() -> None:
    model = nli_model()
    pipe = pipeline("zero-shot-classification", model=model, tokenizer=TOKENIZER)
    (explanation,) = TextExplainer(pipe, labels=LABELS, method="occlusion")(TEXTS[0])
    before = of_pipeline(model, TEXTS[0])
    assert explanation.predicted_label == LABELS[before.index(max(before))]
    assert explanation.task == "zero-shot-classification"
    # The text's words only; each is taken from all pairs at once.
    assert explanation.text == TEXTS[0]
    assert explanation.tokens == ("the", "film", "was", "great")
    after = of_pipeline(model, "the film was [MASK]")[explanation.predicted]
    assert explanation.scores[3] == pytest.approx(max(before) - after, abs=1e-5)
    with pytest.raises(InvalidInputError, match="labels: expected the labels to choose from"):
        TextExplainer(pipe)


def test_contrasts_and_every_label_of_words() -> None:
    explainer = TextExplainer(nli_model(), TOKENIZER, labels=LABELS, unit="word")
    words = [["the", "film", "was", "great"]]
    every = explainer(words, target="all")
    assert [e.target_label for e in every] == LABELS
    assert every[0].settings["perturbation"] == "blend+attention"
    (contrast,) = explainer(words, target=("slow", "good"))
    logits = explainer.text_model.outputs(explainer.text_model.tokenize(words))[0]
    text_model = explainer.text_model
    batch = text_model.collate(text_model.tokenize(words))
    with torch.no_grad():
        empty = text_model(text_model.baselines(batch), *batch.forward_args)[0]
    expected = float((logits - empty)[2] - (logits - empty)[0])
    assert sum(contrast.scores) == pytest.approx(expected, abs=1e-3)


def test_several_true_labels_are_explained_by_default() -> None:
    model = nli_model()
    text_model = ZeroShotClassifier(model, TOKENIZER, labels=LABELS, multi_label=True, threshold=0)
    assert len(TextExplainer(text_model)(TEXTS[0])) == 3
    (one,) = TextExplainer(model, TOKENIZER, labels=["good"])(TEXTS[0])
    assert one.target_probability == pytest.approx(
        of_pipeline(model, TEXTS[0], multi_label=True)[0], abs=1e-5
    )


def test_a_decoder_is_read_at_its_last_token() -> None:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(TOKENIZER), n_embd=16, n_layer=2, n_head=2, n_positions=64,
        initializer_range=0.5, pad_token_id=0, bos_token_id=None, eos_token_id=None,
        id2label={0: "entailment", 1: "no"}, label2id={"entailment": 0, "no": 1},
    )  # fmt: skip
    model = GPT2ForSequenceClassification(config).eval()
    text_model = ZeroShotClassifier(model, TOKENIZER, labels=LABELS)
    expected = torch.tensor([of_pipeline(model, text) for text in TEXTS])
    torch.testing.assert_close(text_model.predict(TEXTS), expected)


def test_without_labels_it_is_a_classifier_of_pairs() -> None:
    explainer = TextExplainer(nli_model(), TOKENIZER, method="random")
    assert type(explainer.text_model) is TextClassifier
    assert len(explainer(("a film", "good"))[0].parts) == 2


def test_mistakes() -> None:
    def explainer(model: Any = None, **options: Any) -> TextExplainer:
        return TextExplainer(model or nli_model(), TOKENIZER, **{"labels": LABELS, **options})

    with pytest.raises(InvalidInputError, match="got negative, positive; a classifier of labels"):
        explainer(bert_classifier(len(TOKENIZER)))
    for template in ("no slot", "{} and {}", "{text}", "{"):
        with pytest.raises(InvalidInputError, match="template: expected a hypothesis with the"):
            explainer(template=template)
    with pytest.raises(InvalidInputError, match="labels: expected different words"):
        explainer(labels=["a", "a"])
    with pytest.raises(InvalidInputError, match="max_length: expected"):
        explainer(max_length=5)
    with pytest.raises(InvalidInputError, match="texts: expected single texts"):
        explainer()(("a film", "good"))
