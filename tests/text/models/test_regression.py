"""Several outputs that are values: one is explained, by name."""

from __future__ import annotations

import pytest
import torch

from captum_aml.exceptions import InvalidInputError
from captum_aml.text import TextClassifier, TextExplainer, TextRegressor
from tests._helpers.text_models import bert_classifier, word_piece_tokenizer

TOKENIZER = word_piece_tokenizer()
NAMES = ("valence", "arousal", "dominance")


def test_one_of_several_values_is_explained() -> None:
    model = bert_classifier(len(TOKENIZER), labels=NAMES)
    model.config.problem_type = "regression"
    with pytest.raises(InvalidInputError, match=r"label=.* one of valence, arousal, dominance"):
        TextExplainer(model, TOKENIZER)
    with pytest.raises(InvalidInputError, match="which is for TextRegressor"):
        TextClassifier(model, TOKENIZER)
    with pytest.raises(InvalidInputError, match="got 'joy'"):
        TextRegressor(model, TOKENIZER, label="joy")
    text = "a good film"
    values = model(**TOKENIZER(text, return_tensors="pt")).logits[0]
    for label in ("arousal", 1):
        explainer = TextExplainer(TextRegressor(model, TOKENIZER, label=label), method="occlusion")
        (explanation,) = explainer(text)
        assert explanation.value == pytest.approx(float(values[1]), abs=1e-5)
        assert explanation.target_label == "arousal"
        assert explanation.settings["label"] == "arousal"
        # Leave one out, of this output.
        removed = TOKENIZER("a [MASK] film", return_tensors="pt")
        with torch.no_grad():
            without = model(**removed).logits[0, 1]
        assert explanation.scores[1] == pytest.approx(float(values[1] - without), abs=1e-4)
