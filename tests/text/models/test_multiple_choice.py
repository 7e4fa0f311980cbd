"""Multiple choice: outputs as the model's own, copies of the context, options as labels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import BertForMultipleChoice

from captum_aml.exceptions import InvalidInputError
from captum_aml.text import MultipleChoiceModel, TextExplainer
from tests._helpers.text_models import bert_classifier, word_piece_tokenizer

TOKENIZER = word_piece_tokenizer()
TEXT = ("the film was good", ["great plot", "a very slow actor", "bad"])
OTHERS = [
    ("the film", "is it good", ["a plot", "not at first"]),
    {"text": "good film", "choices": ["a", "bad ."]},
    TEXT,
]


@pytest.fixture(scope="module")
def model() -> BertForMultipleChoice:
    torch.manual_seed(0)
    return BertForMultipleChoice(bert_classifier(len(TOKENIZER)).config).eval()


def own_logits(model: BertForMultipleChoice, context: str, options: list[str]) -> torch.Tensor:
    """What transformers gives, shape (R,)."""
    encoded = TOKENIZER([context] * len(options), options, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**{name: values[None] for name, values in encoded.items()}).logits[0]
    assert isinstance(logits, torch.Tensor)
    return logits


def test_predictions_are_those_of_the_model(model: BertForMultipleChoice) -> None:
    text_model = MultipleChoiceModel(model, TOKENIZER)
    torch.testing.assert_close(
        text_model.predict([TEXT])[0], own_logits(model, *TEXT).softmax(dim=0)
    )
    # A question stands before each option.
    asked = text_model.outputs(text_model.tokenize(OTHERS[:1]))[0]
    expected = own_logits(model, "the film", ["is it good a plot", "is it good not at first"])
    torch.testing.assert_close(asked, expected)


def test_a_word_is_taken_from_all_pairs_at_once(model: BertForMultipleChoice) -> None:
    explanation = TextExplainer(model, TOKENIZER, method="occlusion")(TEXT)[0]
    assert explanation.tokens[:4] == ("the", "film", "was", "good")
    assert explanation.text.split("\n") == [TEXT[0], *TEXT[1]]
    whole = own_logits(model, *TEXT).softmax(dim=0)
    chosen = int(whole.argmax())
    assert explanation.target_label == TEXT[1][chosen]
    places = {1: ("the [MASK] was good", TEXT[1]), 10: (TEXT[0], [*TEXT[1][:2], "[MASK]"])}
    for place, (context, options) in places.items():
        without = own_logits(model, context, options).softmax(dim=0)
        difference = float(whole[chosen] - without[chosen])
        assert explanation.scores[place] == pytest.approx(difference, abs=1e-5)


def test_contributions_to_a_contrast_sum_to_its_change(model: BertForMultipleChoice) -> None:
    text_model = MultipleChoiceModel(model, TOKENIZER)
    explainer = TextExplainer(text_model)
    batch = text_model.collate(text_model.tokenize([TEXT]))
    mask, *others = batch.forward_args
    with torch.no_grad():
        whole = text_model(batch.input_ids, mask, *others)[0]
        without = text_model(text_model.baselines(batch), mask, *others)[0]
    (chosen,) = explainer(TEXT)
    assert chosen.settings["perturbation"] == "blend+attention"
    (contrast,) = explainer(TEXT, target=("bad", "great plot"))
    assert contrast.explained_label == "bad rather than great plot"
    expected = float((whole - without)[2] - (whole - without)[0])
    assert sum(contrast.scores) == pytest.approx(expected, abs=1e-3)
    # The other option says nothing about these two.
    slow = contrast.tokens.index("slow")
    assert abs(contrast.scores[slow]) < 1e-6


def test_texts_with_other_numbers_of_options_are_explained_as_alone(
    model: BertForMultipleChoice,
) -> None:
    explainer = TextExplainer(model, TOKENIZER, unit="word")
    together = explainer(OTHERS, target="all")
    assert [e.row for e in together] == [0, 0, 1, 1, 2, 2, 2]
    alone = [e for text in OTHERS for e in explainer(text, target="all")]
    for one, other in zip(together, alone, strict=True):
        assert one.target_label == other.target_label
        assert one.scores == pytest.approx(other.scores, abs=1e-5)


def test_long_contexts_are_cut_and_counted(model: BertForMultipleChoice) -> None:
    explainer = TextExplainer(model, TOKENIZER, method="random", max_length=7)
    (explanation,) = explainer(("the film was very good", ["a plot", "bad"]))
    # Beside three special tokens four fit: of the first pair "the film", of the second one more.
    assert explanation.tokens == ("the", "film", "was", "a", "plot", "bad")
    assert explanation.n_tokens_cut == 2


def test_options_are_asked_for_and_equal_ones_told_apart(model: BertForMultipleChoice) -> None:
    explainer = TextExplainer(model, TOKENIZER, method="random")
    with pytest.raises(InvalidInputError, match="texts: expected a context with its options"):
        explainer("a film")
    (explanation,) = explainer(("a film", ["bad", "good", "bad"]), target=2)
    assert explanation.target_label == "bad (2)"
    with pytest.raises(InvalidInputError, match="target: expected one of the labels bad, good"):
        explainer(("a film", ["bad", "good"]), target="slow")
    with pytest.raises(InvalidInputError, match="cannot be fitted where a text is read"):
        TextExplainer(model, TOKENIZER).fit([TEXT])


def test_a_folder_is_loaded(model: BertForMultipleChoice, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    from_folder = TextExplainer(tmp_path, method="occlusion", device="cpu")
    assert isinstance(from_folder.text_model, MultipleChoiceModel)
    assert from_folder(TEXT) == TextExplainer(model, TOKENIZER, method="occlusion")(TEXT)


def test_an_additive_mask_hides_as_the_usual_one_does(model: BertForMultipleChoice) -> None:
    text_model = MultipleChoiceModel(model, TOKENIZER)
    batch = text_model.collate(text_model.tokenize([TEXT]))
    mask, *others = batch.forward_args
    hidden = mask.clone()
    hidden[0, [2, 13, 15]] = 0
    additive = torch.zeros(hidden.shape).masked_fill(hidden == 0, torch.finfo(torch.float32).min)
    with torch.no_grad():
        expected = text_model(batch.input_ids, hidden, *others)
        for added in (additive[:, None, None], additive[:, None, None].expand(-1, -1, 33, -1)):
            torch.testing.assert_close(text_model(batch.input_ids, added, *others), expected)
    assert not torch.allclose(expected, text_model(batch.input_ids, mask, *others), atol=1e-3)
