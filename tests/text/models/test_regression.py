"""Several outputs that are values: one is explained, by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from captum_aml.exceptions import CheckpointError, InvalidInputError
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


@pytest.mark.filterwarnings("ignore:train_batches.*several classes")
def test_a_masker_is_for_the_output_that_it_was_fitted_for(tmp_path: Path) -> None:
    model = bert_classifier(len(TOKENIZER), labels=NAMES)
    one, other = (TextRegressor(model, TOKENIZER, label=label) for label in NAMES[:2])
    fitted = TextExplainer(one).fit(["a good film", "bad"], epochs=1, n_subsets=2)
    fitted.save_pretrained(tmp_path)
    assert TextExplainer.from_pretrained(tmp_path, one)("bad") == fitted("bad")
    with pytest.raises(CheckpointError, match=r"settings=.*valence.*but the TextRegr"):
        TextExplainer.from_pretrained(tmp_path, other)
