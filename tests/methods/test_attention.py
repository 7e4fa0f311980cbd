"""Attention and its rollout against loops over a model's own weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    FNetConfig,
    FNetForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedModel,
)

from captum_aml import methods
from captum_aml.exceptions import InvalidInputError
from tests._helpers.architectures import tiny_classifier, tokenizer_for
from tests._helpers.methods import IDS, LINEAR, MASK, REFERENCE, WithModel, run
from tests._helpers.text_models import bert_classifier

Array = npt.NDArray[np.float64]
NAMES = ["attention", "attention-rollout"]


def distilbert_classifier() -> PreTrainedModel:
    torch.manual_seed(3)
    config = DistilBertConfig(
        vocab_size=40, dim=16, n_layers=3, n_heads=2, hidden_dim=32, initializer_range=0.5
    )
    return DistilBertForSequenceClassification(config).eval()


def gpt2_classifier() -> PreTrainedModel:
    torch.manual_seed(3)
    config = GPT2Config(
        vocab_size=40, n_embd=16, n_layer=3, n_head=2, initializer_range=0.5, pad_token_id=0
    )
    return GPT2ForSequenceClassification(config).eval()


def weights(model: PreTrainedModel, ids: Tensor) -> list[Array]:
    """Each layer's attention (L, L) for one text without padding, a mean over heads."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    with torch.no_grad():
        layers = model(input_ids=ids[None], output_attentions=True).attentions
    model.set_attn_implementation(before)
    return [layer[0].double().mean(dim=0).numpy() for layer in layers]


def rollout_by_hand(layers: list[Array], position: int) -> Array:
    """Follows what the position sees from the last layer down, one token at a time."""
    n_tokens = len(layers[0])
    share = np.zeros(n_tokens)
    share[position] = 1.0
    for layer in reversed(layers):
        below = np.zeros(n_tokens)
        for upper in range(n_tokens):
            for lower in range(n_tokens):
                stays = 0.5 if upper == lower else 0.0
                below[lower] += share[upper] * (0.5 * layer[upper, lower] + stays)
        share = below
    return share


def last_by_hand(layers: list[Array], position: int) -> Array:
    return layers[-1][position]


@pytest.mark.parametrize(
    ("name", "by_hand"), [("attention", last_by_hand), ("attention-rollout", rollout_by_hand)]
)
@pytest.mark.parametrize("padded_left", [False, True])
@pytest.mark.parametrize(
    ("make", "reads_last"),
    [(lambda: bert_classifier(40), False), (distilbert_classifier, False), (gpt2_classifier, True)],
    ids=["bert", "distilbert", "gpt2"],
)
def test_it_is_what_the_weights_say(
    make: Callable[[], PreTrainedModel],
    reads_last: bool,
    padded_left: bool,
    name: str,
    by_hand: Callable[[list[Array], int], Array],
) -> None:
    model = make()
    ids, reference, mask = IDS.clone(), REFERENCE.clone(), MASK.clone()
    if padded_left and reads_last:
        ids[0], reference[0], mask[0] = (t[0].roll(2) for t in (IDS, REFERENCE, MASK))
    scores = run(
        name,
        (WithModel(model), model.get_input_embeddings()),
        ids=ids,
        reference=reference,
        mask=mask,
    )
    for row in range(2):
        tokens = mask[row] == 1
        layers = weights(model, ids[row][tokens])
        if padded_left and reads_last and row == 0:
            continue  # GPT-2 counts positions from the padding; the padded row is tested below
        expected = by_hand(layers, len(layers[0]) - 1 if reads_last else 0)
        maskable = (ids[row] != reference[row])[tokens].numpy()
        assert scores[row][tokens].numpy() == pytest.approx(expected * maskable, abs=1e-5)
        assert scores[row].max() > 0.05


@pytest.mark.parametrize("name", NAMES)
def test_padding_on_the_left_of_a_causal_model(name: str) -> None:
    model = gpt2_classifier()
    ids = torch.tensor([[0, 0, 3, 4, 5]])
    reference = torch.tensor([[0, 0, 2, 2, 2]])
    mask = (ids != 0).long()
    layer = model.get_input_embeddings()

    def numbered(ids: Tensor, mask: Tensor) -> Tensor:
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        logits: Tensor = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits
        return logits

    numbered.model = model  # type: ignore[attr-defined]
    together = run(name, (numbered, layer), ids=ids, reference=reference, mask=mask)
    alone = run(
        name, (numbered, layer), ids=ids[:, 2:], reference=reference[:, 2:], mask=mask[:, 2:]
    )
    assert torch.allclose(together[:, 2:], alone, atol=1e-5)
    assert alone.max() > 0.05


@pytest.mark.parametrize("name", NAMES)
def test_a_transformers_model_itself_can_be_given(name: str) -> None:
    model = bert_classifier(40)
    layer = model.get_input_embeddings()
    assert torch.equal(run(name, (model, layer)), run(name, (WithModel(model), layer)))


@pytest.mark.parametrize("name", NAMES)
def test_one_pass_for_a_batch(name: str) -> None:
    model = bert_classifier(40)
    passes = []
    model.register_forward_pre_hook(lambda *_: passes.append(1))
    run(name, (WithModel(model), model.get_input_embeddings()), target=None)
    assert len(passes) == 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_the_implementation_is_restored_after_an_error_too(name: str, implementation: str) -> None:
    model = bert_classifier(40)
    model.set_attn_implementation(implementation)
    forward_func = WithModel(model)
    method = methods.create(name, forward_func, model.get_input_embeddings())
    hooks = len(model._forward_hooks), len(model._forward_pre_hooks)
    with pytest.raises(InvalidInputError, match="target: expected classes from 0 to 1, got 4"):
        method(IDS, REFERENCE, target=4, additional_forward_args=(MASK,))
    assert model.config._attn_implementation == implementation
    assert model.bert.config._attn_implementation == implementation
    method(IDS, REFERENCE, target=1, additional_forward_args=(MASK,))
    assert model.config._attn_implementation == implementation
    assert (len(model._forward_hooks), len(model._forward_pre_hooks)) == hooks
    assert model(input_ids=IDS, attention_mask=MASK).attentions is None


@pytest.mark.parametrize("name", NAMES)
class TestRefused:
    def test_a_function_without_a_transformer(self, name: str) -> None:
        for forward_func in (LINEAR, lambda ids: ids):
            with pytest.raises(
                InvalidInputError, match="expects a model of transformers or a text"
            ):
                methods.create(name, forward_func, LINEAR.embedding)

    def test_a_transformer_without_attention(self, name: str) -> None:
        config = FNetConfig(
            vocab_size=40,
            hidden_size=16,
            num_hidden_layers=1,
            intermediate_size=32,
            use_tpu_fourier_optimizations=False,
        )
        model = FNetForSequenceClassification(config).eval()

        class Fourier:
            def __init__(self, model: nn.Module) -> None:
                self.model = model

            def __call__(self, ids: Tensor, mask: Tensor) -> Tensor:
                logits: Tensor = self.model(input_ids=ids).logits
                return logits

        with pytest.raises(InvalidInputError, match="got FNetForSequenceClassification"):
            run(name, (Fourier(model), model.get_input_embeddings()))

    def test_a_function_that_runs_its_model_twice(self, name: str) -> None:
        class Twice(WithModel):
            def __call__(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
                return super().__call__(ids, mask) + super().__call__(ids, mask)

        model = bert_classifier(40)
        with pytest.raises(InvalidInputError, match="run its model once, it ran 2 times"):
            run(name, (Twice(model), model.get_input_embeddings()))

    @pytest.mark.parametrize(
        ("architecture", "reason"),
        [
            ("bart", "one stack of layers"),
            ("funnel", "between the 6 tokens"),
            ("longformer", "which gives none"),
            ("jamba", "got 1 of 2"),
            ("squeezebert", "in shares of one"),
            ("minimax", "between the 6 tokens"),
        ],
    )
    def test_what_is_no_attention_between_all_tokens(
        self, name: str, architecture: str, reason: str
    ) -> None:
        model, ids = tiny_classifier(architecture), torch.tensor([[0, 5, 7, 8, 11, 2]])
        with pytest.raises(InvalidInputError, match=f"{reason}.*'occlusion' takes any model"):
            run(
                name,
                (WithModel(model), model.get_input_embeddings()),
                ids=ids,
                reference=torch.where((ids == 0) | (ids == 2), ids, 4),
                mask=torch.ones_like(ids),
            )


@pytest.mark.parametrize(
    ("name", "by_hand"), [("attention", last_by_hand), ("attention-rollout", rollout_by_hand)]
)
def test_xlnet_is_read_at_its_last_token(
    name: str, by_hand: Callable[[list[Array], int], Array]
) -> None:
    model, tokenizer = tiny_classifier("xlnet"), tokenizer_for("xlnet")
    ids = tokenizer("the film was dull", return_tensors="pt").input_ids
    special = (ids == 0) | (ids == 2)
    scores = run(
        name,
        (WithModel(model), model.get_input_embeddings()),
        ids=ids,
        reference=torch.where(special, ids, 4),
        mask=torch.ones_like(ids),
    )
    layers = weights(model, ids[0])
    expected = by_hand(layers, len(layers[0]) - 1) * (~special[0]).numpy()
    assert scores[0].numpy() == pytest.approx(expected, abs=1e-5)
