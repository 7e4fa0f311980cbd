"""Sequence classifiers of every architecture are explained, in batches as alone."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from captum_aml.exceptions import NoGradientError
from captum_aml.text import TextClassifier, TextExplainer
from tests._helpers.architectures import (
    ARCHITECTURES,
    WORDS,
    save_architecture,
    tiny_classifier,
    tokenizer_for,
)

#: Those that differ most from BERT: they embed tokens in other ways, or padding changes them.
HARDEST = (
    "bart", "mbart", "t5", "t5gemma", "xlnet", "longformer", "ctrl", "ibert", "big_bird", "fnet",
    "convbert", "nystromformer", "mpt", "perceiver",
)  # fmt: skip
#: Those that cannot be differentiated.
WITHOUT_GRADIENT = ("canine", "reformer")

TEXTS = ("the film was not very dull and slow", "a very good film", "the long and slow film was")
#: Longer than what any of them takes but for those without a limit.
LONG = " ".join(WORDS * 4)
UNLIMITED = ("xlnet",)

architectures = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in HARDEST else pytest.mark.slow)
        for name in ARCHITECTURES
        if name not in WITHOUT_GRADIENT
    ],
)


def alone(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, text: str) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(**tokenizer(text, return_tensors="pt")).logits[0]
    return logits


def test_there_are_sixty_at_least() -> None:
    assert len(ARCHITECTURES) >= 60


@architectures
def test_from_a_folder_to_explanations(name: str, tmp_path: Path) -> None:
    model, tokenizer = tiny_classifier(name), tokenizer_for(name)
    # AutoTokenizer makes some architectures' own tokenizers of the words, which split them.
    explainer = TextExplainer(save_architecture(name, tmp_path), tokenizer, device="cpu")
    text_model = explainer.text_model
    logits = torch.stack([alone(model, tokenizer, text) for text in TEXTS])
    assert torch.allclose(text_model.predict(TEXTS), logits.softmax(dim=-1), atol=1e-4)

    explanations = explainer(TEXTS)
    for text, found, whole in zip(TEXTS, explanations, logits, strict=True):
        (single,) = explainer(text)
        assert len(found.scores) == len(text.split())
        assert found.scores == pytest.approx(single.scores, abs=2e-3)
        without = alone(model, tokenizer, " ".join(["<mask>"] * len(text.split())))
        drop = whole[found.predicted] - without[found.predicted]
        assert sum(found.scores) == pytest.approx(float(drop), abs=2e-3)

    words = TextExplainer(text_model, unit="word")(TEXTS[0])[0]
    assert words.tokens == tuple(TEXTS[0].split())
    assert words.scores == pytest.approx(explanations[0].scores, abs=2e-3)

    long = explainer(LONG)[0]
    assert len(long.scores) + long.n_tokens_cut == len(LONG.split())
    assert (long.n_tokens_cut > 0) is (name not in UNLIMITED)


def with_blended_token(
    model: PreTrainedModel, ids: Tensor, place: int, baseline: int, keep: float, spare: int
) -> tuple[PreTrainedModel, Tensor]:
    """A copy of a model with a blend of two tokens in its vocabulary, and the ids with it."""
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for module in changed.modules():
            table = getattr(module, "weight", None)
            if isinstance(table, torch.nn.Parameter) and len(table) == model.config.vocab_size:
                table[spare] = keep * table[ids[0, place]] + (1 - keep) * table[baseline]
    blended = ids.clone()
    blended[0, place] = spare
    return changed, blended


@architectures
def test_a_blend_at_the_entry_is_a_token_of_that_embedding(name: str) -> None:
    model, tokenizer = tiny_classifier(name), tokenizer_for(name)
    text_model = TextClassifier(model, tokenizer)
    # Long enough for block-sparse attention, and no multiple of any window.
    text = " ".join(word for word in WORDS * 3 if word != "good")[:95].rsplit(" ", 1)[0]
    batch = text_model.collate(text_model.tokenize([text]))
    baseline, place, spare = text_model.baseline.id, 3, tokenizer.convert_tokens_to_ids("good")
    layer = text_model.embedding_layer
    removed = layer(batch.input_ids.masked_fill(batch.maskable, baseline)).detach()
    for keep in (0.0, 0.3):
        changed, ids = with_blended_token(model, batch.input_ids, place, baseline, keep, spare)
        with torch.no_grad():
            expected = TextClassifier(changed, tokenizer)(ids, *batch.forward_args)

        def blend(_: object, __: object, embedded: Tensor, keep: float = keep) -> Tensor:
            mask = torch.ones(embedded.shape[1], 1)
            mask[place] = keep
            return mask * embedded + (1 - mask) * removed

        handle = layer.register_forward_hook(blend)
        with torch.no_grad():
            found = text_model(batch.input_ids, *batch.forward_args)
        handle.remove()
        unchanged = text_model(batch.input_ids, *batch.forward_args)
        assert torch.allclose(found, expected, atol=1e-4)
        assert not torch.allclose(found, unchanged, atol=1e-4)


@pytest.mark.parametrize("name", ["bart", "t5", "xlnet", "longformer"])
def test_gradients_along_a_path_add_up(name: str) -> None:
    explainer = TextExplainer(
        tiny_classifier(name),
        tokenizer_for(name),
        method="integrated-gradients",
        n_steps=200,
        batch_size=256,
    )
    text_model = explainer.text_model
    (found,) = explainer(TEXTS[1])
    batch = text_model.collate(text_model.tokenize([TEXTS[1]]))
    with torch.no_grad():
        without = text_model(text_model.baselines(batch), *batch.forward_args).softmax(dim=-1)
    drop = found.probability - float(without[0, found.predicted])
    assert sum(found.scores) == pytest.approx(drop, abs=0.01)


@pytest.mark.parametrize("name", WITHOUT_GRADIENT)
def test_another_method_is_named_where_there_is_no_gradient(name: str) -> None:
    model, tokenizer = tiny_classifier(name), tokenizer_for(name)
    explainer = TextExplainer(model, tokenizer)
    with pytest.raises(NoGradientError, match="method='occlusion'"):
        TextExplainer(explainer.text_model, method="aml")(TEXTS)
    with pytest.warns(UserWarning, match="no gradient"):
        assert [len(found.scores) for found in explainer(TEXTS)] == [8, 4, 6]
    explanations = TextExplainer(explainer.text_model, method="occlusion")(TEXTS)
    for text, found in zip(TEXTS, explanations, strict=True):
        whole = alone(model, tokenizer, text).softmax(dim=-1)
        first = alone(model, tokenizer, text.replace(text.split()[0], "<mask>", 1)).softmax(dim=-1)
        drop = whole[found.predicted] - first[found.predicted]
        assert found.scores[0] == pytest.approx(float(drop), abs=1e-4)


def test_block_sparse_attention_is_kept_after_short_texts() -> None:
    model, tokenizer = tiny_classifier("big_bird"), tokenizer_for("big_bird")
    fresh = alone(tiny_classifier("big_bird"), tokenizer, LONG[:100])
    text_model = TextClassifier(model, tokenizer)
    text_model.predict(["a film"])
    assert torch.allclose(text_model.predict([LONG[:100]]), fresh.softmax(dim=-1), atol=1e-5)
    assert model.base_model.attention_type == "block_sparse"


@pytest.mark.parametrize("name", ["ctrl", "gpt2"])
def test_decoders_without_a_padding_token_are_read_at_their_last_one(name: str) -> None:
    model, tokenizer = tiny_classifier(name), tokenizer_for(name)
    model.config.pad_token_id = tokenizer.pad_token = None
    texts = ("a film", "the dull", "the long and slow film")
    expected = torch.stack([alone(model, tokenizer, text).softmax(dim=-1) for text in texts])
    text_model = TextClassifier(model, tokenizer)
    assert text_model.is_decoder
    assert torch.allclose(text_model.predict(texts), expected, atol=1e-5)


def test_what_was_explained_before_decides_nothing() -> None:
    # A block-sparse model takes an additive mask for short texts only.
    explainer = TextExplainer(
        TextClassifier(tiny_classifier("big_bird"), tokenizer_for("big_bird"))
    )
    (before,) = explainer("a dull film")
    explainer("a dull film a film dull " * 5)
    assert explainer("a dull film") == [before]
