"""The word at a mask token, against the model's own logits there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import pipeline

from captum_aml.exceptions import InvalidInputError
from captum_aml.text import MaskFiller, TextExplainer
from tests._helpers.masked_lms import KINDS, masked_model, masked_tokenizer

TEXTS = ["a film is very [MASK], not bad.", "the [MASK] was good"]


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_outputs_are_the_models_logits_at_the_mask(kind: str) -> None:
    tokenizer = masked_tokenizer("pieces")
    model = masked_model(kind, len(tokenizer))
    filler = MaskFiller(model, tokenizer)
    found = filler.outputs(filler.tokenize(TEXTS))
    assert found.shape == (2, len(tokenizer)) == (2, filler.n_classes)
    for text, row in zip(TEXTS, found, strict=True):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        logits = model(input_ids=ids).logits[0]
        torch.testing.assert_close(row, logits[ids[0] == tokenizer.mask_token_id][0])


def test_explanations_of_words_and_contrasts() -> None:
    tokenizer = masked_tokenizer("pieces")
    model = masked_model("bert", len(tokenizer))
    explainer = TextExplainer(model, tokenizer)
    first, good, contrast = explainer(TEXTS[0], target=["film", "good", ("good", "bad")])
    best = pipeline("fill-mask", model, tokenizer=tokenizer)(TEXTS[0])[0]
    assert (first.predicted_label, first.about) == (best["token_str"], "[MASK]")
    assert first.probability == pytest.approx(best["score"], abs=1e-5)
    assert first.task == "fill-mask"
    assert "[MASK]" not in first.tokens
    assert contrast.explained_label == "good rather than bad"
    # What removing every other word takes from z_good - z_bad.
    filler = explainer.text_model
    text = filler.tokenize(TEXTS[:1])
    batch = filler.collate(text)
    with torch.no_grad():
        pairs = [
            filler(ids, *batch.forward_args)[
                0, [filler.label_names.index(w) for w in ("good", "bad")]
            ]
            for ids in (batch.input_ids, filler.baselines(batch))
        ]
    change = (pairs[0] - pairs[1])[0] - (pairs[0] - pairs[1])[1]
    assert sum(contrast.scores) == pytest.approx(float(change), abs=1e-3)
    assert explainer(TEXTS, target="good")[0].scores == pytest.approx(good.scores, abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "text", "word", "entry"),
    [
        ("pieces", "a [MASK] film", "good", "good"),
        ("pieces", "a [MASK] film", "Good", "good"),
        ("pieces", "a [MASK] film", "##able", "##able"),
        ("bytes", "a <mask> film", "good", "Ġgood"),
        ("bytes", "a <mask> film", " good", "Ġgood"),
        ("bytes", "a <mask> film", "Ġgood", "Ġgood"),
        ("bytes", "a film<mask>", " was", "Ġwas"),
        ("bytes", "a film <mask>", ",", "Ġ,"),
        ("metaspace", "a <mask> film", "good", "▁good"),
        ("metaspace", "a <mask> film", "▁good", "▁good"),
    ],
)
def test_words_as_users_write_them(kind: str, text: str, word: str, entry: str) -> None:
    tokenizer = masked_tokenizer(kind)
    filler = MaskFiller(masked_model("bert", len(tokenizer)), tokenizer)
    ((question,),) = filler.questions(filler.tokenize([text]), [word])
    assert filler.label_names[question.targets[0].index] == entry


def test_what_cannot_be_filled_in_is_said() -> None:
    tokenizer = masked_tokenizer("pieces")
    model = masked_model("bert", len(tokenizer))
    explainer = TextExplainer(model, tokenizer, method="occlusion")
    with pytest.raises(InvalidInputError, match=r"the mask token '\[MASK\]', one, got 0 in 'a'"):
        explainer("a")
    with pytest.raises(InvalidInputError, match=r"got 2 .*mask_number=0\) names one"):
        explainer("[MASK] a [MASK]")
    with pytest.raises(InvalidInputError, match="within the 64 tokens that it is cut to"):
        explainer("film " * 99 + "[MASK]")
    with pytest.raises(InvalidInputError, match="which is 3: 'un', '##believ', '##able'"):
        explainer(TEXTS[0], target="unbelievable")
    with pytest.raises(InvalidInputError, match=r"vocabulary, got 'xyz'"):
        explainer(TEXTS[0], target=("good", "xyz"))
    with pytest.raises(
        InvalidInputError, match=r"0 to 52 \(\[PAD\], .*\.\.\. \(53 in all\)\)"
    ) as big:
        explainer(TEXTS[0], target=99)
    assert len(str(big.value)) < 400
    second = TextExplainer(MaskFiller(model, tokenizer, mask_number=1), method="occlusion")
    (explanation,) = second("[MASK] a film [MASK]")
    assert explanation.tokens == ("a", "film")
    assert explanation.place == (14, 20)


def test_it_is_found_from_folder_and_pipeline(tmp_path: Path) -> None:
    tokenizer = masked_tokenizer("pieces")
    model = masked_model("distilbert", len(tokenizer))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    for given in (tmp_path, pipeline("fill-mask", model, tokenizer=tokenizer)):
        explainer = TextExplainer(given, device="cpu")
        assert type(explainer.text_model) is MaskFiller
