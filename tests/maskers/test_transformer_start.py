"""Encoders that a TransformerMasker takes, and the parts that its copy of them leaves out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from captum_aml.exceptions import InvalidInputError
from captum_aml.maskers import TransformerMasker
from tests._helpers.models import ENCODERS, tiny_encoder

LAYERS: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def decoder(kind: str) -> Any:
    if kind == "gpt2":
        config = GPT2Config(vocab_size=30, n_embd=16, n_layer=2, n_head=2, n_positions=12)
        return GPT2ForSequenceClassification(config).base_model
    if kind == "llama":
        return LlamaForSequenceClassification(LlamaConfig(vocab_size=30, **LAYERS)).base_model
    return BertModel(BertConfig(vocab_size=30, is_decoder=True, **LAYERS))


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_causal_decoder_is_refused(kind: str, dtype: torch.dtype) -> None:
    encoder = decoder(kind).to(dtype).train()  # dropout must not hide it
    named = r"^encoder: .*SharedMasker.*TransformerMasker.from_pretrained"
    with pytest.raises(InvalidInputError, match=named):
        TransformerMasker(encoder, n_classes=2)
    with pytest.raises(InvalidInputError, match=named):
        TransformerMasker.from_model(encoder, n_classes=2)
    assert encoder.training


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder_is_taken_also_untrained(kind: str, dtype: torch.dtype) -> None:
    encoder: Any = tiny_encoder(kind).base_model
    TransformerMasker(type(encoder)(encoder.config).to(dtype), n_classes=2)


@pytest.mark.parametrize("kind", ENCODERS)
def test_the_copy_has_no_hooks_of_the_callers(kind: str) -> None:
    model = tiny_encoder(kind)
    calls: list[str] = []

    class Note:
        def __init__(self, name: str) -> None:
            self.name = name

        def __deepcopy__(self, memo: Any) -> Any:
            raise AssertionError("a hook was copied")

        def __call__(self, *_: Any, **__: Any) -> None:
            calls.append(self.name)

    modules = [model.base_model, *model.base_model.modules()]
    for module in modules[:6]:
        module.register_forward_hook(Note("forward"))
        module.register_forward_hook(Note("kwargs"), with_kwargs=True, always_call=True)
        module.register_forward_pre_hook(Note("pre"), with_kwargs=True)
        module.register_full_backward_hook(Note("backward"))
        module.register_full_backward_pre_hook(Note("backward pre"))
    masker = TransformerMasker.from_model(model)
    ids = torch.randint(3, 30, (2, 5))
    masker.encoder(inputs_embeds=masker.encoder.get_input_embeddings()(ids).detach())
    for module in masker.encoder.modules():
        assert not any(len(v) for k, v in vars(module).items() if k.endswith(("_hooks", "_kwargs")))
    assert calls == []
    model(ids).logits.sum().backward()  # the caller's own are still there
    assert set(calls) == {"forward", "kwargs", "pre", "backward", "backward pre"}


def test_what_torch_computes_in_hooks_stays() -> None:
    """Weight normalization in its older form is a hook that belongs to the model."""
    model = tiny_encoder("bert")
    layer: nn.Module = model.base_model.encoder.layer[0].output.dense
    nn.utils.weight_norm(layer)
    with torch.no_grad():
        layer(torch.zeros(1, layer.in_features))  # torch copies no weights with a gradient
    masker = TransformerMasker.from_model(model)
    copied = masker.encoder.encoder.layer[0].output.dense
    with torch.no_grad():
        copied.weight_g.mul_(2)
        x = torch.randn(3, layer.in_features)
        torch.testing.assert_close(copied(x) - copied.bias, 2 * (layer(x) - layer.bias))
