"""The explained model's answers to unmasked examples are computed once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_aml import AMLAttribution, LayerAMLAttribution
from captum_aml.maskers import TransformerMasker
from captum_aml.masking.call import parse_call
from captum_aml.masking.sites import InputSite, LayerSite
from captum_aml.training.data import PredictionCache
from tests._helpers.fit_runs import equal, weights_of
from tests._helpers.models import tiny_encoder

EPOCHS = 3


class CountingCalls:
    """A tiny BERT that counts its calls."""

    def __init__(self) -> None:
        self.model = tiny_encoder("bert")
        self.calls = 0

    def __call__(self, ids: Tensor, *args: Any) -> Tensor:
        self.calls += 1
        logits: Tensor = self.model(ids, *args).logits
        return logits


def batches(n: int = 3) -> list[dict[str, Any]]:
    ids = torch.randint(3, 30, (n * 4, 6), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[::3, 4:] = 0
    return [
        {"inputs": i, "baselines": i * m.bool().logical_not(), "additional_forward_args": (m,)}
        for i, m in zip(ids.split(4), mask.split(4), strict=True)
    ]


def masker_of(model: Any) -> TransformerMasker:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TransformerMasker.from_model(model)


def fit(forward: CountingCalls, **settings: Any) -> dict[str, Tensor]:
    aml = AMLAttribution(
        forward,
        embedding_layer=forward.model.get_input_embeddings(),
        masker=masker_of(forward.model),
    )
    given = {"epochs": EPOCHS, "learning_rate": 1e-3, "validations_per_epoch": 1, **settings}
    return weights_of(aml.fit(batches(), batches(1), **given))


def test_the_unmasked_pass_runs_once_for_each_example() -> None:
    cached, plain = CountingCalls(), CountingCalls()
    with_cache = fit(cached)
    without = fit(plain, cache_predictions=False)
    n = 3 + 1  # batches an epoch, validation included: one masked pass each
    assert plain.calls == 2 * n * EPOCHS
    assert cached.calls == n * EPOCHS + n
    assert equal(with_cache, without)


def test_a_model_in_training_mode_is_asked_every_time() -> None:
    forward = CountingCalls()
    forward.model.train()
    fit(forward)
    assert forward.calls == 2 * (3 + 1) * EPOCHS


def test_a_layer_whose_tensors_need_a_pass_gets_one() -> None:
    def fit(layer: str, cache: bool) -> tuple[int, dict[str, Tensor]]:
        forward = CountingCalls()
        aml = LayerAMLAttribution(
            forward,
            forward.model.get_submodule(layer),
            masker=masker_of(forward.model),
        )
        aml.fit(batches(), epochs=EPOCHS, cache_predictions=cache)
        return forward.calls, weights_of(aml)

    for layer in ("bert.embeddings", "bert.embeddings.word_embeddings"):
        (calls, weights), (plain, expected) = fit(layer, True), fit(layer, False)
        assert equal(weights, expected)
        saved = 0 if layer == "bert.embeddings" else 3 * (EPOCHS - 1)
        assert plain - calls == saved


def test_every_argument_of_an_example_counts() -> None:
    forward = CountingCalls()
    site = InputSite(forward, (forward.model.get_input_embeddings(),))
    cache = PredictionCache()
    ids, mask = batches(1)[0]["inputs"], torch.ones(4, 6, dtype=torch.long)

    def ask(rows: list[int], mask: Tensor = mask, *more: Any) -> int:
        before = forward.calls
        call = parse_call(ids[rows], additional_forward_args=(mask[rows], *more))
        found = cache.capture(call, site)
        expected = site.capture(call)
        assert torch.equal(found.features[0], expected.features[0])
        output = found.output if isinstance(found.output, Tensor) else found.output.logits
        # A row does not depend on the batch that it was computed in, but for rounding.
        assert torch.allclose(output, expected.output, atol=1e-6)
        assert found.tap is not None
        return forward.calls - before - 1

    assert ask([0, 1, 2]) == 1
    assert ask([2, 0]) == 0  # in another order and batch
    assert ask([2, 3]) == 1
    assert ask([3, 3]) == 0
    other = mask.clone()
    other[0, 5] = 0
    assert ask([0], other) == 1
    assert ask([0, 1], other) == 0
    assert ask([1], mask, None) == 1
    assert ask([1], mask, None) == 0
    assert len(cache) == 4 + 1 + 1


def test_arguments_that_cannot_be_compared_are_not_cached() -> None:
    model = tiny_encoder("bert")
    calls = []

    def forward(ids: Tensor, options: object) -> Tensor:
        calls.append(options)
        return model(ids).logits

    site = InputSite(forward, (model.get_input_embeddings(),))
    cache, ids = PredictionCache(), torch.randint(3, 30, (2, 5))
    for _ in range(2):
        cache.capture(parse_call(ids, additional_forward_args=({"a": 1},)), site)
    assert len(calls) == 2
    assert len(cache) == 0


def test_memory_is_bounded() -> None:
    model = tiny_encoder("bert")
    site = InputSite(model, ())
    cache = PredictionCache(max_examples=3)
    for seed in range(4):
        ids = torch.randint(3, 30, (2, 5), generator=torch.Generator().manual_seed(seed))
        cache.capture(parse_call(ids), site)
    assert len(cache) == 3
    small = PredictionCache(max_numbers=5)
    small.capture(parse_call(ids), site)
    assert len(small) == 1  # of three numbers each


def test_floats_and_layers_are_recalled_or_not() -> None:
    def forward(x: Tensor) -> Tensor:
        return torch.stack([x.sum(1), -x.sum(1)], dim=1)

    x = torch.rand(3, 4)
    cache, site = PredictionCache(), InputSite(forward, ())
    first = cache.capture(parse_call(x), site)
    again = cache.capture(parse_call(x), site)
    assert cache.hits == 1
    assert torch.equal(first.output, again.output)
    assert torch.equal(again.features[0], x)
    model = tiny_encoder("bert")
    layer = LayerSite(model, (model.bert.encoder.layer[0],))
    for _ in range(2):
        cache.capture(parse_call(torch.randint(3, 30, (2, 5))), layer)
    assert cache.hits == 1
