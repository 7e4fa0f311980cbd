"""Blending with the baseline, and finding a perturbation by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel, PreTrainedModel

from captum_aml import AMLAttribution
from captum_aml.exceptions import InvalidInputError
from captum_aml.perturbation import (
    AttentionRemoval,
    AutomaticRemoval,
    Blend,
    ForwardState,
    JointRemoval,
    Perturbation,
    fitting_removal,
    resolve_perturbation,
)
from captum_aml.reviews import load_reviews_classifier
from captum_aml.text import TextClassifier
from tests._helpers import references

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def state_of(seed: int, dtype: torch.dtype = torch.float64) -> ForwardState:
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return (torch.randn(*shape, generator=g, dtype=torch.float64) * 3).to(dtype)

    return ForwardState((draw(2, 3, 4), draw(2, 5)), (draw(2, 3, 4), draw(2, 5)), ("argument",))


@given(st.integers(0, 1000))
def test_blending_is_the_equation_element_by_element(seed: int) -> None:
    state = state_of(seed)
    keep = (torch.rand(2, 3, 1, dtype=torch.float64), torch.rand(2, 5, dtype=torch.float64))
    words, values = Blend()(state, keep).features
    for i in range(2):
        for j in range(3):
            for d in range(4):
                expected = references.blend(
                    keep[0][i, j, 0].item(),
                    state.features[0][i, j, d].item(),
                    state.baselines[0][i, j, d].item(),
                )
                # Rounding of one product and one sum of numbers of size 10.
                assert words[i, j, d].item() == pytest.approx(expected, abs=1e-14)
        for j in range(5):
            expected = references.blend(
                keep[1][i, j].item(),
                state.features[1][i, j].item(),
                state.baselines[1][i, j].item(),
            )
            assert values[i, j].item() == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_full_mask_gives_the_inputs_and_an_empty_one_the_baselines_exactly(
    dtype: torch.dtype,
) -> None:
    state = state_of(3, dtype)
    # The mask is float32 whatever the features are.
    for value, expected in ((1.0, state.features), (0.0, state.baselines)):
        keep = (torch.full((2, 3, 1), value), torch.full((2, 5), value))
        for part, tensor in zip(Blend()(state, keep).features, expected, strict=True):
            assert part.dtype == dtype
            assert torch.equal(part, tensor)


@given(st.integers(0, 1000))
def test_a_mask_and_its_complement_add_up_to_inputs_and_baselines(seed: int) -> None:
    state = state_of(seed)
    keep = (torch.rand(2, 3, 1, dtype=torch.float64), torch.rand(2, 5, dtype=torch.float64))
    kept = Blend()(state, keep).features
    complement = Blend()(state, tuple(1 - k for k in keep)).features
    for a, b, x, y in zip(kept, complement, state.features, state.baselines, strict=True):
        torch.testing.assert_close(a + b, x + y, rtol=0, atol=1e-13)


def test_the_gradient_by_the_mask_is_inputs_minus_baselines() -> None:
    state = state_of(5)
    for start in (0.0, 0.3, 0.5, 1.0):
        keep = torch.full((2, 3, 1), start, dtype=torch.float64, requires_grad=True)
        words, _ = Blend()(state, (keep, torch.ones(2, 5, dtype=torch.float64))).features
        words.sum().backward()
        expected = (state.features[0] - state.baselines[0]).sum(dim=2, keepdim=True)
        assert keep.grad is not None
        torch.testing.assert_close(keep.grad, expected, rtol=0, atol=1e-13)


def test_nothing_else_of_the_state_changes() -> None:
    state = state_of(0)
    before = [t.clone() for t in state.features]
    after = Blend()(state, (torch.zeros(2, 3, 1), torch.zeros(2, 5)))
    assert after.args is state.args
    assert after.baselines is state.baselines
    assert all(torch.equal(a, b) for a, b in zip(state.features, before, strict=True))


# By name


def test_a_perturbation_is_found_by_name_or_taken_as_it_is() -> None:
    assert isinstance(resolve_perturbation("blend"), Blend)
    mine = Blend(name="mine")
    assert resolve_perturbation(mine) is mine
    assert isinstance(mine, Perturbation)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("auto", AutomaticRemoval()),
        ("blend", Blend()),
        ("attention", AttentionRemoval()),
        ("causal-attention", AttentionRemoval(causal=True)),
        ("blend+attention", JointRemoval(AttentionRemoval())),
        ("blend+causal-attention", JointRemoval(AttentionRemoval(causal=True))),
    ],
)
def test_names_are_of_their_perturbations(name: str, expected: Perturbation) -> None:
    found = resolve_perturbation(name)
    assert found == expected
    assert found.name == name
    # Fitting goes through what is named; where that is left open, through blending.
    assert fitting_removal(found) == (Blend() if name == "auto" else found)


def test_until_it_is_decided_auto_blends() -> None:
    state = state_of(4)
    keep = (torch.rand(2, 3, 1, dtype=torch.float64), torch.rand(2, 5, dtype=torch.float64))
    for got, expected in zip(
        AutomaticRemoval()(state, keep).features, Blend()(state, keep).features, strict=True
    ):
        assert torch.equal(got, expected)


@pytest.mark.parametrize(
    ("given_", "fragments"),
    [
        ("blur", ("'attention'", "'blend'", "'blur'")),
        (None, ("a name or an object", "NoneType")),
        (lambda state, keep: state, ("`name`", "<lambda>")),
        (Blend, ("an object with `name`",)),
    ],
)
def test_an_unknown_perturbation_is_named(given_: Any, fragments: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInputError, match=r"^perturbation: ") as caught:
        resolve_perturbation(given_)
    assert all(f in str(caught.value) for f in fragments)


# --- Removal through attention --------------------------------------------------------------------


def encoder() -> BertModel:
    torch.manual_seed(0)
    return BertModel(
        BertConfig(
            vocab_size=30,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=16,
            initializer_range=0.3,  # so that attention matters
        )
    ).eval()


def decoder() -> LlamaModel:
    torch.manual_seed(0)
    return LlamaModel(
        LlamaConfig(
            vocab_size=30,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            intermediate_size=16,
            max_position_embeddings=16,
            initializer_range=0.3,  # so that attention matters
        )
    ).eval()


IDS = torch.tensor([[5, 6, 7, 8, 9], [10, 11, 12, 0, 0]])
ATTENDED = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


def attention_state(dtype: torch.dtype = torch.float32) -> ForwardState:
    features = torch.zeros(2, 5, 16, dtype=dtype)
    return ForwardState((features,), (features,), ("other", ATTENDED), attention_mask=1)


def masked_by(perturbation: AttentionRemoval, keep: Tensor) -> Tensor:
    perturbed = perturbation(attention_state(), (keep[..., None],))
    assert perturbed.args[0] == "other"
    mask: Tensor = perturbed.args[1]
    return mask


@torch.no_grad()
def hidden(model: PreTrainedModel, mask: Tensor) -> Tensor:
    states: Tensor = model(IDS, attention_mask=mask).last_hidden_state
    return states


@pytest.mark.parametrize(
    ("build", "causal"), [(encoder, False), (decoder, True)], ids=["encoder", "decoder"]
)
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_a_full_mask_changes_nothing(
    build: Callable[[], PreTrainedModel], causal: bool, implementation: str
) -> None:
    model = build()
    model.set_attn_implementation(implementation)
    added = masked_by(AttentionRemoval(causal=causal), torch.ones(2, 5))
    difference = hidden(model, added) - hidden(model, ATTENDED)
    # Padded positions attend to whatever they like.
    assert difference[ATTENDED.bool()].abs().max() < 1e-5


@pytest.mark.parametrize(
    ("build", "causal"), [(encoder, False), (decoder, True)], ids=["encoder", "decoder"]
)
def test_an_empty_place_is_hidden_as_padding_is(
    build: Callable[[], PreTrainedModel], causal: bool
) -> None:
    model = build()
    keep = torch.ones(2, 5)
    keep[0, 2] = keep[1, 1] = 0.0
    added = masked_by(AttentionRemoval(causal=causal), keep)
    visible = ATTENDED.clone()
    visible[0, 2] = visible[1, 1] = 0
    difference = hidden(model, added) - hidden(model, visible)
    # A millionth of the attention is left.
    assert difference[visible.bool()].abs().max() < 1e-4
    assert (hidden(model, ATTENDED) - hidden(model, visible))[visible.bool()].abs().max() > 1e-2


def test_a_half_mask_halves_what_a_key_gets_before_the_weights_are_normalized() -> None:
    logits = torch.tensor([1.0, 0.5, -1.0, 2.0, 0.0])
    plain = logits.exp() * torch.tensor([1.0, 0.5, 1.0, 0.5, 1.0])
    keep = torch.tensor([[1.0, 0.5, 1.0, 0.5, 1.0], [1.0] * 5])
    added = masked_by(AttentionRemoval(), keep)
    weights = (logits + added[0, 0, 0]).softmax(dim=-1)
    assert torch.allclose(weights, plain / plain.sum(), atol=1e-6)
    assert bool((added[1, 0, 0, 3:] == torch.finfo(torch.float32).min).all())


def test_the_gradient_pulls_at_every_token_that_is_attended() -> None:
    model = encoder()
    keep = torch.full((2, 5), 0.7, requires_grad=True)
    perturbed = AttentionRemoval()(attention_state(), (keep[..., None],))
    model(IDS, attention_mask=perturbed.args[1]).last_hidden_state[:, 0].square().sum().backward()
    assert keep.grad is not None
    assert bool((keep.grad[ATTENDED.bool()] != 0).all())
    assert bool((keep.grad[~ATTENDED.bool()] == 0).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_mask_has_the_models_dtype_and_stays_finite(dtype: torch.dtype) -> None:
    state = attention_state(dtype)
    for value in (0.0, 1.0):
        (_, added) = AttentionRemoval()(state, (torch.full((2, 5, 1), value),)).args
        assert added.dtype == dtype
        assert bool(torch.isfinite(added).all())


def test_a_model_without_an_attention_mask_is_told() -> None:
    state = replace(attention_state(), attention_mask=None)
    with pytest.raises(InvalidInputError, match="attention_mask"):
        AttentionRemoval()(state, (torch.ones(2, 5, 1),))


def test_a_mask_of_other_units_is_told() -> None:
    with pytest.raises(InvalidInputError, match="one mask value per position"):
        AttentionRemoval()(attention_state(), (torch.ones(2, 4, 1),))


# --- Both at once ---------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
def test_both_at_once_are_both(causal: bool) -> None:
    features, baselines = torch.randn(2, 5, 16), torch.randn(2, 5, 16)
    state = replace(attention_state(), features=(features,), baselines=(baselines,))
    attention = AttentionRemoval(causal=causal)
    keep = (torch.rand(2, 5, 1),)
    both = JointRemoval(attention)(state, keep)
    assert torch.equal(both.features[0], Blend()(state, keep).features[0])
    assert torch.equal(both.args[1], attention(state, keep).args[1])
    assert both.args[0] == "other"


def test_it_can_be_tuned_and_fitted_with() -> None:
    classifier = TextClassifier(*load_reviews_classifier())
    batch = classifier.collate(
        classifier.tokenize(["The plot was slow, but the ending was superb.", "It was not good."])
    )
    call: dict[str, Any] = {
        "baselines": classifier.baselines(batch),
        "additional_forward_args": batch.forward_args,
    }
    aml = AMLAttribution(
        classifier,
        embedding_layer=classifier.embedding_layer,
        perturbation="attention",
        output="logits",
        tune="mask",
        scores="mask",
    )
    scores = aml.attribute(batch.input_ids, n_steps=50, **call)
    assert aml.perturbation_ == "attention"
    assert aml.last_terms_ is not None
    tokens = [classifier.tokenizer.convert_ids_to_tokens(row) for row in batch.input_ids.tolist()]
    first = [names[int(row.argmax())] for names, row in zip(tokens, scores, strict=True)]
    assert first == ["superb", "good"]
    aml.fit([{"inputs": batch.input_ids, **call}], epochs=1)
    assert aml.is_fitted
