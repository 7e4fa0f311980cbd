"""Captum's own tools for language models take our methods in place of theirs."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import torch
from captum.attr import (
    FeatureAblation,
    LayerIntegratedGradients,
    LLMAttribution,
    LLMAttributionResult,
    LLMGradientAttribution,
    ProductBaselines,
    TextTemplateInput,
    TextTokenInput,
)
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from captum_aml import (
    AMLAttribution,
    LAAttribution,
    LayerAMLAttribution,
    LayerLAAttribution,
    LLMAMLAttribution,
)
from captum_aml.exceptions import InvalidInputError
from tests._helpers.decoders import bpe_tokenizer, language_model
from tests._helpers.planted_lm import PlantedLM, planted_prompt, word_tokenizer

PROMPT = "Text: the film was good Label:"
TARGET = " positive film"
INPUT_METHODS = [AMLAttribution, LAAttribution]
LAYER_METHODS = [LayerAMLAttribution, LayerLAAttribution]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return bpe_tokenizer(eos_token="<eos>")


@pytest.fixture(scope="module")
def llama(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    return language_model("llama", len(tokenizer))


def log_probs(model: PreTrainedModel, prompt: Tensor, target: Tensor) -> Tensor:
    """Of each token of a target (T,) after a prompt (L,), by one pass over both."""
    ids = torch.cat([prompt, target]).unsqueeze(0)
    with torch.no_grad():
        logits = model(ids).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(dim=-1).gather(1, target.unsqueeze(1)).squeeze(1)


def assert_same_form(ours: LLMAttributionResult, captums: LLMAttributionResult) -> None:
    assert (ours.input_tokens, ours.output_tokens) == (captums.input_tokens, captums.output_tokens)
    assert ours.token_attr is not None
    assert captums.token_attr is not None
    for one, other in ((ours.seq_attr, captums.seq_attr), (ours.token_attr, captums.token_attr)):
        assert (one.shape, one.dtype, one.device) == (other.shape, other.dtype, other.device)
        assert bool(one.isfinite().all())


class UncachedLM(PlantedLM):
    """Is called as Captum's tools call models: with ids and no more."""

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, use_cache: bool = False
    ) -> Any:
        return super().forward(input_ids, attention_mask, use_cache)


# --- LLMGradientAttribution -----------------------------------------------------------------------


@pytest.mark.parametrize("method", LAYER_METHODS)
@pytest.mark.parametrize("skips", [False, True])
def test_the_gradient_tool_takes_the_layer_methods(
    llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, method: type[Any], skips: bool
) -> None:
    layer = llama.get_input_embeddings()
    skip_tokens = tokenizer.encode("Label:") if skips else None
    inp = TextTokenInput(PROMPT, tokenizer, skip_tokens=skip_tokens)
    captums = LLMGradientAttribution(LayerIntegratedGradients(llama, layer), tokenizer)
    tool = LLMGradientAttribution(method(llama, layer), tokenizer)
    ours = tool.attribute(inp, target=TARGET, skip_tokens=skip_tokens)
    assert_same_form(ours, captums.attribute(inp, target=TARGET))

    target = torch.tensor(tokenizer.encode(TARGET))
    removed = inp.to_model_input(torch.zeros_like(inp.to_tensor()))
    expected = log_probs(llama, inp.inp_tensor[0], target) - log_probs(llama, removed[0], target)
    assert ours.token_attr is not None
    torch.testing.assert_close(ours.token_attr.sum(dim=1), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.seq_attr, ours.token_attr.sum(dim=0))


@pytest.mark.parametrize("method", LAYER_METHODS)
def test_the_gradient_tool_finds_planted_words_with_them(method: type[Any]) -> None:
    for seed in range(3):
        words, places, answer = planted_prompt(8, seed=seed)
        model, reads_words = UncachedLM().eval(), word_tokenizer()
        tool = LLMGradientAttribution(method(model, model.embedding), reads_words)
        result = tool.attribute(TextTokenInput(" ".join(words), reads_words), target=answer)
        assert result.token_attr is not None
        assert result.token_attr.argmax(dim=1).tolist() == list(places)


# --- LLMAttribution -------------------------------------------------------------------------------


def prompts(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """The inputs that Captum's tutorial makes, in its order."""
    values = ["Dave", "Palm Coast", "FL", "lawyer", "His"]
    names = ["name", "city", "state", "occupation", "pronoun"]
    places = "{} lives in {}, {} and is a {}. {} personal interests include"
    named = "{name} lives in {city}, {state} and is a {occupation}. {pronoun} interests include"
    return {
        "tokens": TextTokenInput(PROMPT, tokenizer, skip_tokens=tokenizer.encode("Label:")),
        "values": TextTemplateInput(places, values),
        "baselines": TextTemplateInput(
            places, values, baselines=["Sarah", "Seattle", "WA", "doctor", "Her"]
        ),
        "groups": TextTemplateInput(
            named,
            dict(zip(names, values, strict=True)),
            baselines=ProductBaselines(
                {
                    ("name", "pronoun"): [("Sarah", "Her"), ("John", "His")],
                    ("city", "state"): [("Seattle", "WA"), ("Boston", "MA")],
                    "occupation": ["doctor", "engineer"],
                }
            ),
            mask={"name": 0, "city": 1, "state": 1, "occupation": 2, "pronoun": 0},
        ),
    }


@pytest.mark.parametrize("method", INPUT_METHODS)
@pytest.mark.parametrize("kind", ["tokens", "values", "baselines", "groups"])
def test_the_perturbation_tool_takes_the_input_methods(
    llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, method: type[Any], kind: str
) -> None:
    inp = prompts(tokenizer)[kind]
    call: dict[str, Any] = {"target": TARGET, "skip_tokens": [1], "num_trials": 2}
    own = method(llama)
    before = dict(vars(own))
    ours = LLMAttribution(own, tokenizer).attribute(inp, **call)
    captums = LLMAttribution(FeatureAblation(llama), tokenizer).attribute(
        inp, **call, use_cached_outputs=False
    )
    assert_same_form(ours, captums)
    assert ours.inp is inp
    assert vars(own) == before
    if kind == "groups":
        seq = ours.seq_attr_dict
        assert seq["Dave"] == seq["His"]
        assert seq["Palm Coast"] == seq["FL"]


@pytest.mark.parametrize("attr_target", ["log_prob", "prob"])
@pytest.mark.parametrize("target", [TARGET, torch.tensor([40])])
def test_contributions_sum_to_the_difference_that_captum_explains(
    llama: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    attr_target: str,
    target: str | Tensor,
) -> None:
    inp = TextTokenInput(PROMPT, tokenizer)
    tool = LLMAttribution(AMLAttribution(llama), tokenizer, attr_target=attr_target)
    result = tool.attribute(inp, target=target)
    ids = torch.tensor(tokenizer.encode(target)) if isinstance(target, str) else target
    ends = []
    for kept in (1, 0):
        read = inp.to_model_input(torch.full_like(inp.to_tensor(), kept))
        each = log_probs(llama, read[0], ids)
        value = torch.cat([each.sum().unsqueeze(0), each])
        ends.append(value.exp() if attr_target == "prob" else value)
    assert result.token_attr is not None
    found = torch.cat([result.seq_attr.unsqueeze(0), result.token_attr]).sum(dim=1)
    scale = (ends[0] - ends[1]).abs().max().item()
    torch.testing.assert_close(found, ends[0] - ends[1], rtol=1e-3, atol=1e-3 * scale)


@pytest.mark.parametrize("method", INPUT_METHODS)
@pytest.mark.parametrize("scores", ["contribution", "mask"])
def test_the_perturbation_tool_explains_what_ours_explains(method: type[Any], scores: str) -> None:
    words, places, answer = planted_prompt(8, seed=1)
    model, reads_words = PlantedLM().eval(), word_tokenizer()
    inp = TextTokenInput(" ".join(words), reads_words)
    own = method(model, scores=scores)
    result = LLMAttribution(own, reads_words).attribute(inp, target=answer)
    expected = LLMAMLAttribution(own, reads_words).attribute(inp, target=answer)
    assert result.token_attr is not None
    assert expected.token_attr is not None
    assert result.token_attr.argmax(dim=1).tolist() == list(places)
    torch.testing.assert_close(result.token_attr, expected.token_attr)
    n_tokens = 2 if scores == "contribution" else 1
    torch.testing.assert_close(result.seq_attr, n_tokens * expected.seq_attr)


def test_what_the_tool_explains_has_its_own_baselines(
    llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    tool = LLMAttribution(AMLAttribution(llama), tokenizer)
    inp = TextTokenInput(PROMPT, tokenizer)
    for name in ("baselines", "feature_mask"):
        with pytest.raises(InvalidInputError, match=r"^baselines, target, feature_mask: expected"):
            tool.attribute(inp, target=TARGET, **{name: torch.zeros(1, 2).long()})
    with pytest.raises(AssertionError, match="does not support"):
        LLMGradientAttribution(AMLAttribution(llama), tokenizer)
    with pytest.raises(AssertionError, match="does not support"):
        LLMAttribution(LayerAMLAttribution(llama, llama.get_input_embeddings()), tokenizer)


def test_every_trial_draws_baselines_of_its_own(
    llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    tool = LLMAttribution(AMLAttribution(llama), tokenizer)
    inp = prompts(tokenizer)["groups"]
    state = random.getstate()
    random.seed(0)
    each = [tool.attribute(inp, target=TARGET).token_attr for _ in range(3)]
    random.seed(0)
    together = tool.attribute(inp, target=TARGET, num_trials=3).token_attr
    random.setstate(state)
    assert not torch.equal(each[0], each[1]) or not torch.equal(each[0], each[2])
    torch.testing.assert_close(together, torch.stack(each).mean(dim=0))


def test_modes_weights_and_torchs_random_numbers_stay(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    model = language_model("llama", len(tokenizer)).train()
    state = torch.get_rng_state()
    weights = copy.deepcopy(model.state_dict())
    LLMAttribution(AMLAttribution(model), tokenizer).attribute(
        prompts(tokenizer)["values"], target=TARGET
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
