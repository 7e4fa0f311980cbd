"""The methods on decoders: classification heads with padding on either side, and prompts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from captum_aml import methods
from captum_aml.exceptions import InvalidInputError
from captum_aml.text import TextClassifier
from captum_aml.text.encoding import TextBatch
from captum_aml.text.models.base import TextModel
from captum_aml.text.models.prompt import PromptClassifier
from tests._helpers.decoders import bpe_tokenizer, decoder_classifier, language_model
from tests._helpers.methods import all_names, few, named

TEXTS = ["the film was good and the plot was not", "an awful film"]
TEMPLATE = "Text: {text} Label:"
KINDS = ("gpt2-left", "gpt2-right", "llama-left", "llama-right", "gpt2-prompt", "llama-prompt")


def text_model(kind: str) -> TextModel:
    name, form = kind.split("-")
    if form == "prompt":
        tokenizer = bpe_tokenizer(eos_token="</s>")
        model = language_model(name, len(tokenizer))
        return PromptClassifier(model, tokenizer, TEMPLATE, ["negative", "positive"])
    tokenizer = bpe_tokenizer(pad_token="<pad>")
    tokenizer.padding_side = form
    model = decoder_classifier(name, len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    return TextClassifier(model, tokenizer)


def batch_of(model: TextModel, texts: list[str] = TEXTS) -> TextBatch:
    return model.collate(model.tokenize(texts))


def scores_of(
    model: TextModel, name: str, batch: TextBatch, feature_mask: Tensor | None = None
) -> Tensor:
    method = methods.create(name, model, model.embedding_layer, n_steps=few(name))
    return method(
        batch.input_ids,
        model.baselines(batch),
        target=1,
        additional_forward_args=batch.forward_args,
        feature_mask=feature_mask,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", all_names())
def test_only_the_text_is_explained_and_alone_as_in_a_batch(name: str, kind: str) -> None:
    model = text_model(kind)
    batch = batch_of(model)
    scores = scores_of(model, name, batch)
    assert torch.isfinite(scores).all()
    assert torch.all(scores[~batch.maskable] == 0)
    # A token may be the reference token itself; all others have a score.
    assert (scores[batch.maskable] != 0).sum() > batch.maskable.sum() / 2
    alone = batch_of(model, TEXTS[1:])
    found = scores_of(model, name, alone)[alone.maskable]
    tolerance = 1e-4 if methods.spec(name).family == "learned" else 1e-5
    assert torch.allclose(scores[1][batch.maskable[1]], found, rtol=1e-4, atol=tolerance)
    # Groups across the text and the prompt: what is not explained has no part in any.
    words = torch.arange(batch.input_ids.shape[1]).expand_as(batch.input_ids) // 3
    grouped = scores_of(model, name, batch, words)
    assert torch.all(grouped[~batch.maskable] == 0)
    first = batch.maskable[0].nonzero().flatten()
    same = first[words[0, first] == words[0, first[0]]]
    assert len(grouped[0, same].unique()) == 1


@pytest.mark.parametrize("kind", ["llama-left", "llama-right", "llama-prompt"])
@pytest.mark.parametrize(
    "name", named("shap", "lime-text", "lime", "kernel-shap", "shapley-sampling", "occlusion")
)
def test_only_the_text_is_ever_replaced(name: str, kind: str) -> None:
    model = text_model(kind)
    batch = batch_of(model)
    reference = model.baselines(batch)
    seen: list[Tensor] = []

    class Seen:
        """The model, whose inputs are noted."""

        def __init__(self, inner: TextModel) -> None:
            self.model, self.tokenizer = inner.model, inner.tokenizer

        def __call__(self, ids: Tensor, *args: Tensor) -> Tensor:
            seen.append(ids.clone())
            return model(ids, *args)

    for row in range(2):
        cut = slice(row, row + 1)
        seen.clear()
        method = methods.create(name, Seen(model), model.embedding_layer, n_steps=few(name))
        method(
            batch.input_ids[cut],
            reference[cut],
            target=1,
            additional_forward_args=tuple(arg[cut] for arg in batch.forward_args),
        )
        variants = torch.cat(seen)
        ids, kept = batch.input_ids[row], ~batch.maskable[row]
        assert torch.all(variants[:, kept] == ids[kept])
        assert torch.all((variants == ids) | (variants == reference[row]))
        assert len(variants.unique(dim=0)) > 2


@pytest.mark.parametrize("kind", KINDS)
def test_attention_is_that_of_the_last_token(kind: str) -> None:
    model = text_model(kind)
    batch = batch_of(model)
    scores = scores_of(model, "attention", batch)
    for row, text in enumerate(TEXTS):
        alone = batch_of(model, [text])
        model.model.set_attn_implementation("eager")
        with torch.no_grad():
            layers = model.model(input_ids=alone.input_ids, output_attentions=True).attentions
        model.model.set_attn_implementation("sdpa")
        expected = layers[-1][0].mean(dim=0)[-1][alone.maskable[0]]
        maskable = (alone.input_ids != model.baselines(alone))[alone.maskable]
        found = scores[row][batch.maskable[row]]
        assert torch.allclose(found, expected * maskable, atol=1e-6)
        assert found.max() > 1e-3


@pytest.mark.parametrize("kind", ["gpt2-right", "llama-prompt"])
def test_rules_of_deep_lift_reach_into_a_decoder(kind: str) -> None:
    model = text_model(kind)
    batch = batch_of(model)
    seen = scores_of(model, "deep-lift", batch)
    method = methods.create("deep-lift", lambda *args: model(*args), model.embedding_layer)
    hidden = method(
        batch.input_ids,
        model.baselines(batch),
        target=1,
        additional_forward_args=batch.forward_args,
    )
    assert not torch.allclose(seen, hidden, atol=1e-4)
    assert not any({"input", "output"} & set(vars(module)) for module in model.model.modules())


@pytest.mark.parametrize("name", ["attention", "attention-rollout"])
class TestRefused:
    def test_label_words_of_several_tokens(self, name: str) -> None:
        tokenizer = bpe_tokenizer(eos_token="</s>")
        labels = {"no": "negative", "yes": "positively good"}
        llama = language_model("llama", len(tokenizer))
        model = PromptClassifier(llama, tokenizer, TEMPLATE, labels)
        batch = batch_of(model)
        length = batch.input_ids.shape[1]
        with pytest.raises(
            InvalidInputError, match=rf"between the {length} tokens of the ids.*tokens of its own"
        ):
            scores_of(model, name, batch)

    def test_encoder_decoders(self, name: str) -> None:
        tokenizer = bpe_tokenizer(metaspace=True, eos_token="</s>")
        model = PromptClassifier(
            language_model("t5", len(tokenizer)), tokenizer, TEMPLATE, ["negative", "positive"]
        )
        with pytest.raises(InvalidInputError, match="got T5ForConditionalGeneration, which gives"):
            scores_of(model, name, batch_of(model))
