"""Models through which no gradient comes, or a part of it: another method by default, said once."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_aml.exceptions import NoGradientError
from captum_aml.reviews import load_reviews_classifier
from captum_aml.text import TextExplainer

TEXT = "The room was not clean."


def quantized(*parts: str) -> Any:
    """The reviews' classifier with dynamic int8 layers in these parts, and its tokenizer."""
    from torch.ao.quantization import quantize_dynamic

    model, tokenizer = load_reviews_classifier()
    model = copy.deepcopy(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces the end of this kind of layers
        for part in parts:
            quantize_dynamic(model.get_submodule(part), {nn.Linear}, torch.qint8, inplace=True)
    return model, tokenizer


@pytest.mark.parametrize("part", ["", "bert.encoder"])
def test_an_int8_model_is_explained_by_perturbation(part: str) -> None:
    model, tokenizer = quantized(part)
    explainer = TextExplainer(model, tokenizer)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        first, again = explainer(TEXT, n_steps=16)[0], explainer(TEXT)[0]
    assert len(caught) == 1
    assert "no gradient comes through Bert" in str(caught[0].message)
    assert "'lime' explains it, by samples (500)" in str(caught[0].message)
    assert first.method == explainer.method_name == "lime"
    assert first.settings["n_samples"] == 500
    assert again == first == TextExplainer(model, tokenizer, method="lime")(TEXT)[0]
    assert {word for word, _ in first.top(2)} == {"not", "clean"}
    assert explainer("", target=("positive", "negative"))[0].method == "lime"


@pytest.mark.parametrize("part", ["", "bert.encoder"])
@pytest.mark.parametrize(
    "method", ["aml", "la", "mask-gradient", "integrated-gradients", "saliency", "deep-lift"]
)
def test_a_method_that_is_named_says_what_is_missing(method: str, part: str) -> None:
    model, tokenizer = quantized(part)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch has one for each layer in the backward pass
        with pytest.raises(NoGradientError, match=r"no derivative.*method that perturbs inputs"):
            TextExplainer(model, tokenizer, method=method)(TEXT)


class Stored(nn.Module):
    """A linear layer that keeps its weights as int8 numbers and computes with floats."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        scale = layer.weight.detach().abs().amax() / 127
        self.register_buffer("scale", scale)
        self.register_buffer("numbers", (layer.weight.detach() / scale).round().to(torch.int8))
        self.register_buffer("bias", layer.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        weight: Any = self.numbers
        return F.linear(x, weight.float() * self.scale, self.bias)


class Rounded(Stored):
    """The same, whose inputs are rounded, too, outside of autograd."""

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x * 32).round() / 32)


@pytest.mark.parametrize(("kind", "method"), [(Stored, "aml"), (Rounded, "lime")])
def test_what_a_gradient_comes_through_is_found_by_trial(kind: type[Stored], method: str) -> None:
    model, tokenizer = load_reviews_classifier()
    model: Any = copy.deepcopy(model)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, kind(child))
    (explanation,) = TextExplainer(model, tokenizer)(TEXT)
    assert explanation.method == method
    assert {word for word, _ in explanation.top(2)} == {"not", "clean"}


def test_a_fitted_masker_explains_an_int8_model_in_one_pass() -> None:
    model, tokenizer = quantized("")
    explainer = TextExplainer(model, tokenizer)
    with pytest.warns(UserWarning, match="no gradient"):
        explainer(TEXT)
    explainer.fit([TEXT] * 4, masker="shared", epochs=1)
    assert explainer(TEXT)[0].method == "aml"
