"""Soft sufficiency and comprehensiveness: expectations by hand, seeds, padding, hooks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from captum_aml.exceptions import InvalidInputError, LayerNotReachedError, NonFiniteError
from captum_aml.metrics import soft_comprehensiveness, soft_sufficiency
from captum_aml.metrics.soft import soft_of
from tests._helpers.models import LinearLogits, tiny_encoder
from tests._helpers.removals import (
    FIRST,
    LAST,
    MASK,
    Counting,
    additive,
    evaluator_of,
    padded,
    words,
)

METRICS = {"sufficiency": soft_sufficiency, "comprehensiveness": soft_comprehensiveness}
#: Ids whose weights are 8, 4, 2 and 1 of 32: p(X) = 23/32, p(0) = 8/32.
IDS = [4, 5, 6, 8]


def additive_value(metric: str, scores: list[float], **options: Any) -> float:
    model = additive()
    ids = torch.tensor([IDS])
    got = METRICS[metric](
        model,
        ids,
        torch.tensor([scores]),
        MASK,
        torch.ones_like(ids),
        embedding_layer=model.embedding,
        **options,
    )
    assert got.dtype == torch.float64
    return float(got.item())


@pytest.mark.parametrize(
    ("metric", "normalize", "expected"),
    [
        # Scores of 1 and 0 leave nothing to chance: the first two tokens stay, 8 + 12 of 32 ...
        ("sufficiency", False, 1 - (23 - 20) / 32),
        # ... or go, and 8 + 3 of 32 are left.
        ("comprehensiveness", False, (23 - 11) / 32),
        # Dropping everything costs 15/32. s0 = 17/32: (29/32 - 17/32) / (15/32).
        ("sufficiency", True, 12 / 15),
        ("comprehensiveness", True, 12 / 15),
    ],
)
def test_scores_that_leave_nothing_to_chance(metric: str, normalize: bool, expected: float) -> None:
    got = additive_value(metric, [2.0, 2.0, -1.0, -1.0], normalize=normalize, n_samples=1)
    assert got == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("metric", "scores", "expected", "variance"),
    [
        # Chances 1, 2/3, 1/3, 0 of being kept: 4/3 + 4/3 + 1 is lost on average. A token of weight
        # w, kept with chance a, has the variance w^2 a (1 - a).
        ("sufficiency", [3.0, 2.0, 1.0, 0.0], 1 - 11 / 3 / 32, (16 + 4) * 2 / 9),
        # What was kept is lost: 8 + 8/3 + 2/3.
        ("comprehensiveness", [3.0, 2.0, 1.0, 0.0], 34 / 3 / 32, (16 + 4) * 2 / 9),
        # Equal scores, 1 or any other, keep half of each: 15/2 is lost on average.
        ("sufficiency", [1.0] * 4, 1 - 15 / 2 / 32, (64 + 16 + 4 + 1) / 4),
        ("comprehensiveness", [1.0] * 4, 15 / 2 / 32, (64 + 16 + 4 + 1) / 4),
    ],
)
def test_expectations_by_hand(
    metric: str, scores: list[float], expected: float, variance: float
) -> None:
    n_samples = 200
    got = additive_value(metric, scores, n_samples=n_samples, seed=1)
    standard_error = math.sqrt(variance / n_samples) / 32
    assert abs(got - expected) < 4 * standard_error
    assert got != pytest.approx(expected, abs=1e-6)  # it is drawn


def test_a_gain_is_no_loss() -> None:
    # Without token 7, of weight -2/32, p rises: that is no loss, nor less than none.
    model = additive()
    ids = torch.tensor([[4, 7]])
    call: dict[str, Any] = {"embedding_layer": model.embedding, "n_samples": 1, "target": 1}
    args = (ids, torch.tensor([[1.0, 0.0]]), MASK, torch.ones_like(ids))
    assert soft_sufficiency(model, *args, **call).item() == 1
    args = (ids, torch.tensor([[0.0, 1.0]]), MASK, torch.ones_like(ids))
    assert soft_comprehensiveness(model, *args, **call).item() == 0


def test_elements_are_dropped_apart_from_each_other() -> None:
    # Every draw of an embedding of 2 x 500 elements keeps about half of them, not all or none.
    fractions = []

    def forward(x: Tensor) -> Tensor:
        fractions.append((x != 0).double().mean(dim=(1, 2)))
        return x.mean(dim=(1, 2))

    x = torch.ones(1, 2, 500)
    soft_sufficiency(forward, x, torch.zeros(1, 2), n_samples=5)
    drawn = torch.cat(fractions[1:])
    assert len(drawn) == 5
    # Five standard errors of 1000 coins.
    assert ((drawn - 0.5).abs() < 5 * math.sqrt(0.25 / 1000)).all()
    assert len(set(drawn.tolist())) > 1


def test_embeddings_as_inputs_are_as_ids() -> None:
    model = tiny_encoder("bert").double()
    table = model.get_input_embeddings()
    batch = padded(words([2, 6, 4]))

    def of_embeddings(embeddings: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = model(inputs_embeds=embeddings, attention_mask=attention_mask).logits
        return logits

    with torch.no_grad():
        embedded, references = table(batch.ids), table(batch.references)
    for metric in METRICS.values():
        by_ids = metric(model, batch.ids, batch.scores, batch.references, batch.attention_mask)
        by_embeddings = metric(
            of_embeddings, embedded, batch.scores, references, batch.attention_mask
        )
        torch.testing.assert_close(by_ids, by_embeddings, rtol=0, atol=1e-7)
        assert ((by_ids >= 0) & (by_ids <= 1)).all()
        assert len(set(by_ids.tolist())) == 3


@settings(max_examples=15)
@given(
    st.permutations(range(5)),
    st.integers(1, 5),
    st.integers(1, 9),
    st.integers(0, 1),
    st.booleans(),
    st.sampled_from(sorted(METRICS)),
)
def test_order_company_batches_and_padding_change_nothing(
    order: list[int], n: int, batch_size: int, extra: int, left: bool, metric: str
) -> None:
    texts = words([1, 7, 3, 9, 5], seed=8)
    model = tiny_encoder("bert").double()

    def measured(rows: list[int], **options: Any) -> list[float]:
        batch = padded([texts[i] for i in rows], left=left, extra=options.pop("extra", 0))
        values: list[float] = METRICS[metric](
            model,
            batch.ids,
            batch.scores,
            batch.references,
            batch.attention_mask,
            n_samples=2,
            **options,
        ).tolist()
        return values

    got = measured(order[:n], extra=extra, batch_size=batch_size)
    assert got == pytest.approx([measured([i])[0] for i in order[:n]], abs=1e-7)


def test_seeds() -> None:
    scores = [3.0, 2.0, 1.0, 0.0]
    state = torch.get_rng_state()
    values = {seed: additive_value("sufficiency", scores, seed=seed) for seed in range(4)}
    assert values[0] == additive_value("sufficiency", scores)
    assert len(set(values.values())) > 1
    # The same seed draws the same for a prefix of the samples: 1 and 2 differ by the second.
    one, two = (additive_value("sufficiency", scores, n_samples=n) for n in (1, 2))
    second = 2 * two - one
    assert 0 <= second <= 1
    assert torch.equal(torch.get_rng_state(), state)


def test_linearly_rescaled_scores_are_the_same() -> None:
    scores = [3.0, 2.0, 1.0, 0.0]
    for metric in METRICS:
        expected = additive_value(metric, scores)
        assert additive_value(metric, [7 * s - 40 for s in scores]) == expected


def test_what_is_undefined_is_nan() -> None:
    model = additive()
    # No token; a token of weight 0, which dropping does not matter for; and one of weight 1/4.
    ids = torch.tensor([[FIRST, LAST, 0], [FIRST, 9, LAST], [FIRST, 4, LAST]])
    references = torch.where(ids > 3, MASK, ids)
    mask = (ids != 0).long()
    for metric in METRICS.values():
        for normalize, expected in ((False, [True, False, False]), (True, [True, True, False])):
            got = metric(
                model,
                ids,
                torch.rand(3, 3),
                references,
                mask,
                target=1,
                embedding_layer=model.embedding,
                normalize=normalize,
            )
            assert got.isnan().tolist() == expected


def test_only_what_can_be_removed_is_dropped() -> None:
    # Special tokens have weights here; the one word has the highest score, so that it stays, or
    # goes alone.
    weights = [0.0, 1 / 8, 1 / 16, 0.0, 1 / 4]

    def forward(x: Tensor, attention_mask: Tensor) -> Tensor:
        p = (x[..., 0] * attention_mask).sum(dim=1)
        return torch.stack([1 - p, p], dim=1)

    table = torch.tensor(weights).double()[:, None]
    ids = torch.tensor([[1, 4, 4, 2, 0]])
    x, references = table[ids], table[torch.tensor([[1, 3, 3, 2, 0]])]
    scores = torch.tensor([[9.0, 1.0, 0.0, -9.0, 99.0]])
    args = (x, scores, references, (ids != 0).long())
    options: dict[str, Any] = {"target": 1, "n_samples": 1}
    # One word of 1/4 is lost of 1/8 + 1/4 + 1/4 + 1/16.
    assert soft_sufficiency(forward, *args, **options).item() == pytest.approx(3 / 4)
    assert soft_comprehensiveness(forward, *args, **options).item() == pytest.approx(1 / 4)


def no_hooks(model: nn.Module) -> bool:
    return not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_the_hook_goes_also_after_an_error() -> None:
    model = tiny_encoder("bert")
    batch = padded(words([3, 5]))
    args = (batch.ids, batch.scores, batch.references, batch.attention_mask)
    soft_sufficiency(model, *args)
    assert no_hooks(model)

    n_calls = 0

    def forward(ids: Tensor, attention_mask: Tensor) -> Tensor:
        nonlocal n_calls
        n_calls += 1
        logits: Tensor = model(ids, attention_mask=attention_mask).logits
        if n_calls > 1:
            raise KeyError("mine")
        return logits

    layer = model.get_input_embeddings()
    with pytest.raises(KeyError, match="mine"):
        soft_sufficiency(forward, *args, embedding_layer=layer)
    assert n_calls == 2
    assert no_hooks(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_models_of_any_dtype(dtype: torch.dtype) -> None:
    batch = padded(words([3, 5]))
    args = (batch.ids, batch.scores, batch.references, batch.attention_mask)
    expected = soft_comprehensiveness(tiny_encoder("bert").double(), *args, target=1)
    got = soft_comprehensiveness(tiny_encoder("bert").to(dtype), *args, target=1)
    assert got.dtype == torch.float64
    tolerance = 0.1 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(got, expected, rtol=0, atol=tolerance)


def test_gradient_modes_make_no_difference() -> None:
    model = tiny_encoder("bert")
    batch = padded(words([3, 5]))
    args = (batch.ids, batch.scores, batch.references, batch.attention_mask)
    expected = soft_sufficiency(model, *args)
    assert not expected.requires_grad
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.equal(soft_sufficiency(model, *args), expected)
    assert all(p.grad is None for p in model.parameters())


def test_passes_are_bounded_and_counted() -> None:
    model = additive()
    counting = Counting(model)

    def forward(ids: Tensor, attention_mask: Tensor) -> Any:
        return counting(ids, attention_mask)

    ids = torch.tensor([[4, 5], [5, 4], [4, 5]])
    scores = torch.tensor([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]])
    evaluator = evaluator_of(forward, ids, MASK, torch.ones_like(ids), batch_size=2)
    soft_of(
        evaluator,
        scores,
        model.embedding,
        complement=False,
        normalize=True,
        n_samples=3,
        seed=0,
    )
    # Two different texts: as they are, three draws each, and once without everything.
    assert evaluator.n_passes == len(counting.seen) == 2 * (1 + 3 + 1)
    assert counting.largest == 2


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_samples": 0}, InvalidInputError, "n_samples: .*at least 1, got 0"),
        ({"n_samples": 1.5}, InvalidInputError, "n_samples: .*1.5"),
        ({"seed": -1}, InvalidInputError, "seed: .*-1"),
        ({"batch_size": -1}, InvalidInputError, "batch_size: .*-1"),
        ({"embedding_layer": None}, InvalidInputError, "embedding_layer: .*None"),
        ({"attributions": torch.full((1, 4), torch.nan)}, NonFiniteError, "attributions: "),
        ({"attributions": torch.rand(1, 5)}, InvalidInputError, "attributions: "),
        ({"target": 3}, InvalidInputError, "target: "),
        ({"output": "other"}, InvalidInputError, "output: "),
        ({"embedding_layer": nn.Embedding(9, 2)}, LayerNotReachedError, "embedding_layer: .*0 tim"),
    ],
)
def test_bad_arguments_are_named(
    metric: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    model = additive()

    def forward(ids: Tensor, attention_mask: Tensor) -> Tensor:
        return model(ids, attention_mask)

    ids = torch.tensor([IDS])
    call: dict[str, Any] = {
        "attributions": torch.rand(1, 4),
        "baselines": MASK,
        "additional_forward_args": torch.ones_like(ids),
        "embedding_layer": model.embedding,
        **options,
    }
    with pytest.raises(error, match=message):
        METRICS[metric](forward, ids, **call)


def test_inputs_without_embeddings_are_refused() -> None:
    model = LinearLogits([1.0, 2.0], 0.0)
    with pytest.raises(InvalidInputError, match=r"inputs: .*embeddings \(N, L, D\).*\(1, 2\)"):
        soft_sufficiency(model, torch.ones(1, 2), torch.ones(1, 2), target=1)
    ids = torch.ones(1, 2, 3, dtype=torch.long)
    layer = nn.Embedding(3, 2)
    with pytest.raises(InvalidInputError, match=r"inputs: .*ids \(N, L\).*\(1, 2, 3\)"):
        soft_sufficiency(model, ids, torch.ones(1, 2, 3), target=1, embedding_layer=layer)


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (lambda layer, ids: layer(ids) + layer(ids), "ran 2 times"),
        (lambda layer, ids: layer(ids.flatten()).reshape(*ids.shape, 2), r"shape \(1, 4, 'D'\)"),
    ],
)
def test_a_layer_that_does_not_embed_the_ids_once_is_refused(
    runs: Callable[[nn.Module, Tensor], Tensor], message: str
) -> None:
    layer = nn.Embedding(9, 2)

    def forward(ids: Tensor) -> Tensor:
        return runs(layer, ids).mean(dim=1)

    with pytest.raises(LayerNotReachedError, match=f"embedding_layer: .*{message}"):
        soft_sufficiency(forward, torch.tensor([IDS]), torch.rand(1, 4), embedding_layer=layer)
    assert no_hooks(layer)
