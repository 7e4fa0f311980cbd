"""``perturbation="auto"``: what the first call finds a model to take, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForSequenceClassification

from captum_aml import AMLAttribution, LayerAMLAttribution
from tests._helpers.cases import CASES, MASK, PAD, Case, TokenClassifier
from tests._helpers.checks import DEFAULT_CALLS, KnownMasker, Method, assert_same, differs, flat
from tests._helpers.models import tiny_encoder

INPUT, LAYER = DEFAULT_CALLS["AMLAttribution"], DEFAULT_CALLS["LayerAMLAttribution"]


class IgnoresItsMask(TokenClassifier):
    """Takes an attention mask, of whatever shape, and does not look at it."""

    def forward(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits (N, C) of ids (N, L)."""
        return self.head(self.embedding(ids), torch.ones_like(ids))


class TakesItAsFactors(TokenClassifier):
    """Multiplies with its mask, which a mask that is added to logits would turn into nonsense."""

    def forward(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits (N, C) of ids (N, L)."""
        shown = attention_mask.reshape(len(ids), -1)[:, -ids.shape[1] :]
        return self.votes(self.embedding(ids) * shown.unsqueeze(-1)).sum(1)


def _case(model: nn.Module, layer: Any, embedding_layer: Any = None) -> Case:
    """Ids of which the first and the padding are not maskable."""
    ids = torch.randint(2, 20, (3, 6), generator=torch.Generator().manual_seed(1))
    attention = torch.ones_like(ids)
    attention[1, 4:] = 0
    ids = ids.masked_fill(attention == 0, PAD)
    removed = torch.full_like(ids, MASK).masked_fill(attention == 0, PAD)
    removed[:, 0] = ids[:, 0]
    return Case(
        model,
        ids,
        (2,),
        layer=layer,
        target=1,
        baselines=removed,
        args=(attention,),
        embedding_layer=embedding_layer,
    )


def _encoder(kind: str) -> Case:
    model = tiny_encoder(kind)
    return _case(model, model.get_input_embeddings())


def _decoder() -> Case:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForSequenceClassification(
            LlamaConfig(
                vocab_size=30,
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=2,
                intermediate_size=16,
                max_position_embeddings=16,
                initializer_range=0.3,
                pad_token_id=PAD,
            )
        ).eval()
    return _case(model, model.get_input_embeddings())


def _toy(cls: type[TokenClassifier]) -> Case:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = cls()
    return _case(model, model.embedding, model.embedding)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: CASES["bert"].build(), "blend+attention"),
        (lambda: _encoder("distilbert"), "blend+attention"),
        (lambda: _encoder("roberta"), "blend+attention"),
        (_decoder, "blend+causal-attention"),
        (lambda: _toy(TokenClassifier), "blend"),
        (lambda: _toy(IgnoresItsMask), "blend"),
        (lambda: _toy(TakesItAsFactors), "blend"),
    ],
    ids=["bert", "distilbert", "roberta", "llama", "two-dimensional", "ignored", "factors"],
)
@pytest.mark.parametrize("method", [INPUT, LAYER], ids=["input", "layer"])
def test_what_a_model_takes_is_found_out(
    build: Callable[[], Case], expected: str, method: Method
) -> None:
    case = build()
    attribution = method(case)
    scores, delta = attribution.attribute(case.inputs, return_convergence_delta=True, **case.call)
    assert attribution.perturbation_ == expected
    # It is what that name asks for.
    named = method(case, perturbation=expected)
    assert_same(named.attribute(case.inputs, **case.call), scores)
    assert named.perturbation_ == expected
    blended = method(case, perturbation="blend").attribute(case.inputs, **case.call)
    assert differs(flat(blended), flat(scores)) == (expected != "blend")
    # The passes that try it out have no part in what the scores sum to.
    assert bool((delta.abs() < 1e-4).all())


def test_only_tokens_that_are_embedded_are_hidden() -> None:
    # Behind BERT's encoder layer a position is no token any more.
    case = CASES["bert"].build()
    model: Any = case.forward
    later = LayerAMLAttribution(model, model.bert.encoder.layer[0])
    later.attribute(case.inputs, **case.call)
    assert later.perturbation_ == "blend"


def test_without_an_attention_mask_there_is_nothing_to_hide_with() -> None:
    case = CASES["bert"].build()
    attribution = INPUT(case)
    attribution.attribute(case.inputs, **{**case.call, "additional_forward_args": None})
    assert attribution.perturbation_ == "blend"
    # The next call has one.
    attribution.attribute(case.inputs, **case.call)
    assert attribution.perturbation_ == "blend+attention"


@pytest.mark.parametrize("method", [INPUT, LAYER], ids=["input", "layer"])
def test_tokens_are_not_hidden_where_other_content_takes_their_place(method: Method) -> None:
    case = _encoder("roberta")
    content = case.baselines.clone()
    content[1:, 1:3] = torch.tensor([[20, 21], [22, 23]])  # ids of no input, hence all maskable
    case = replace(case, baselines=content)
    expected = ["blend+attention", "blend", "blend"]
    each = []
    for i, name in enumerate(expected):
        alone = case.rows([i])
        attribution = method(alone)
        each.append(attribution.attribute(alone.inputs, **alone.call))
        assert attribution.perturbation_ == name
        named = method(alone, perturbation=name)
        assert_same(named.attribute(alone.inputs, **alone.call), each[i])
    # Each example for itself, whatever is beside it.
    for size, name in ((None, "blend+attention"), (1, "blend, blend+attention")):
        attribution = method(case)
        scores = attribution.attribute(case.inputs, internal_batch_size=size, **case.call)
        assert_same(scores, torch.cat(each), tolerance=1e-4)
        assert attribution.perturbation_ == name
    # Embeddings given in place of ids.
    model: Any = case.forward
    embedded = [model.get_input_embeddings()(ids).detach() for ids in (case.inputs, content)]
    for i, name in enumerate(expected):
        attribution = AMLAttribution(lambda x, mask: model(inputs_embeds=x, attention_mask=mask))
        attribution.attribute(
            embedded[0][i : i + 1],
            embedded[1][i : i + 1],
            target=1,
            additional_forward_args=case.args[0][i : i + 1],
        )
        assert attribution.perturbation_ == name
    rest = case.rows([1, 2])
    attribution = method(rest)
    attribution.attribute(rest.inputs, **rest.call)
    assert attribution.perturbation_ == "blend"


def test_positions_that_are_not_attended_score_0() -> None:
    # They differ from their baselines here, so that they are masked as all others.
    for method in (INPUT, LAYER):
        case = CASES["bert"].build()
        attention = case.args[0]
        case = replace(case, inputs=case.inputs.clamp(min=2), baselines=MASK)
        attribution = method(case)
        scores = attribution.attribute(case.inputs, **case.call)
        by_token = scores.sum(-1) if scores.dim() == 3 else scores
        assert attribution.perturbation_ == "blend+attention"
        assert bool((by_token[attention == 0] == 0).all())
        assert bool((by_token[attention == 1] != 0).all())


@pytest.mark.parametrize("empty", [0, 2])
def test_a_chunk_without_anything_to_mask_has_no_say(empty: int) -> None:
    case = CASES["bert"].build()
    baselines = case.baselines.clone()
    baselines[empty] = case.inputs[empty]
    attribution = INPUT(case)
    for size in (None, 1):
        call = {**case.call, "baselines": baselines, "internal_batch_size": size}
        attribution.attribute(case.inputs, **call)
        assert attribution.perturbation_ == "blend+attention"
    nothing = INPUT(case)
    nothing.attribute(case.inputs, **{**case.call, "baselines": case.inputs})
    assert nothing.perturbation_ == "auto"


def test_a_function_that_holds_something_of_its_batch_is_blended() -> None:
    case = CASES["sequence"].build()
    shift = torch.randn(4, 3)

    def added(embeddings: Tensor, attention: Tensor) -> Tensor:
        # Of one example alone the sum would have no row, or the sizes would not fit.
        return case.forward(embeddings, attention) + shift.repeat(len(embeddings) // 4, 1)

    def without_rows(embeddings: Tensor, attention: Tensor) -> Tensor:
        return added(embeddings, attention)[: len(embeddings) // 4 * 4]

    for forward in (added, without_rows):
        attribution = INPUT(replace(case, forward=forward))
        _, delta = attribution.attribute(case.inputs, return_convergence_delta=True, **case.call)
        assert attribution.perturbation_ == "blend"
        assert bool((delta.abs() < 1e-4).all())


def test_it_is_tried_out_once() -> None:
    case = CASES["bert"].build()
    model: Any = case.forward
    rows: list[int] = []
    model.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    attribution = INPUT(replace(case, embedding_layer=model.get_input_embeddings()))
    attribution.attribute(case.inputs, **case.call)
    first = rows.copy()
    rows.clear()
    attribution.attribute(case.inputs, **case.call)
    # The first example alone: as it is, with nothing hidden, with all and with half of it.
    assert first.count(1) == 4
    assert rows == [n for n in first if n != 1]
    assert rows.count(16 * case.n_examples) == 1
    # Another function is another question: this one ignores its mask.
    attribution.forward_func = lambda ids, mask: model(ids)
    attribution.attribute(case.inputs, **case.call)
    assert attribution.perturbation_ == "blend"


def test_a_masker_is_fitted_and_tuned_through_blending() -> None:
    case = CASES["bert"].build()
    attribution = INPUT(case, masker=KnownMasker())
    for n_steps in (0, 2):
        attribution.attribute(case.inputs, n_steps=n_steps, **case.call)
        assert attribution.perturbation_ == "blend"
    fitted = INPUT(case).fit([{"inputs": case.inputs, **case.call}], epochs=1)
    fitted.attribute(case.inputs, **case.call)
    assert fitted.perturbation_ == "blend"


def test_what_was_decided_is_of_the_last_call() -> None:
    case = CASES["bert"].build()
    attribution = AMLAttribution(case.forward)
    assert attribution.perturbation_ is None
    attribution.attribute(case.inputs, internal_batch_size=1, **case.call)
    assert attribution.perturbation_ == "blend+attention"
    with pytest.raises(ValueError, match="target"):
        attribution.attribute(case.inputs, **{**case.call, "target": 99})
    assert attribution.perturbation_ is None
