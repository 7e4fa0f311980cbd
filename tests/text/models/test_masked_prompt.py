"""Label words at the mask token of a prompt, against the model's own logits there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import pipeline

from captum_aml.exceptions import InvalidInputError
from captum_aml.text import MaskedPromptClassifier, TextExplainer
from tests._helpers.masked_lms import masked_model, masked_tokenizer

LABELS = {"negative": "bad", "positive": "good"}
TEMPLATES = {"pieces": "{text} . the film was [MASK] !", "bytes": "{text} Text: <mask>"}
WORDS = {"pieces": ["bad", "good"], "bytes": ["Ġdull", "Ġgood"]}


@pytest.mark.parametrize("kind", TEMPLATES)
@torch.no_grad()
def test_outputs_are_the_label_words_logits(kind: str) -> None:
    tokenizer = masked_tokenizer(kind)
    model = masked_model("modernbert", len(tokenizer))
    words = [word.removeprefix("Ġ") for word in WORDS[kind]]
    classifier = MaskedPromptClassifier(model, tokenizer, TEMPLATES[kind], words)
    # A mask token of the text's own is not the prompt's.
    texts = [f"a {tokenizer.mask_token} plot", "a gripping film"]
    found = classifier.outputs(classifier.tokenize(texts))
    entries = tokenizer.convert_tokens_to_ids(WORDS[kind])
    for text, row in zip(texts, found, strict=True):
        ids = tokenizer(classifier.prompt(text), return_tensors="pt")["input_ids"]
        place = (ids[0] == tokenizer.mask_token_id).nonzero()[-1, 0]
        torch.testing.assert_close(row, model(input_ids=ids).logits[0, place, entries])


def test_examples_have_their_words_at_the_mask() -> None:
    tokenizer = masked_tokenizer("pieces")
    classifier = MaskedPromptClassifier(
        masked_model("bert", len(tokenizer)),
        tokenizer,
        "[MASK] is {text}",
        LABELS,
        examples=[("a [MASK] plot", "negative")],
    )
    assert classifier.prompt("a film") == "bad is a [MASK] plot\n\n[MASK] is a film"
    (text,) = classifier.tokenize(["a film"])
    assert text.tokens.index("[MASK]") < text.own_inputs["places"][0]


@pytest.mark.parametrize(
    ("template", "labels", "message"),
    [
        ("{text}", LABELS, r"the mask token '\[MASK\]' once, where the label word is, got it 0"),
        ("[MASK] {text} [MASK]", LABELS, "got it 2 times"),
        ("{text} [MASK]", ["unbelievable", "good"], "which is 3: 'un', '##believ', '##able'"),
        ("{text} [MASK]", ["Good", "good"], "same tokens"),
    ],
)
def test_bad_prompts(template: str, labels: dict[str, str], message: str) -> None:
    tokenizer = masked_tokenizer("pieces")
    with pytest.raises(InvalidInputError, match=message):
        TextExplainer(
            masked_model("bert", len(tokenizer)), tokenizer, template=template, labels=labels
        )


def test_it_is_found_with_labels_only_and_can_be_fitted(tmp_path: Path) -> None:
    tokenizer = masked_tokenizer("pieces")
    model = masked_model("bert", len(tokenizer))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    template = TEMPLATES["pieces"]
    for given in (tmp_path, pipeline("fill-mask", model, tokenizer=tokenizer)):
        explainer = TextExplainer(given, template=template, labels=LABELS, device="cpu")
        assert type(explainer.text_model) is MaskedPromptClassifier
    explainer.fit(["a good film", "the plot was bad"], epochs=1)
    (explanation,) = explainer("a gripping film", target=("positive", "negative"))
    assert explanation.tokens == ("a", "gripping", "film")
    assert explanation.explained_label == "positive rather than negative"
