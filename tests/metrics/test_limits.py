"""Normalized AOPC: its limits against all orders there are, and rankings on their scale."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from captum_aml.exceptions import InvalidInputError, NonFiniteError
from captum_aml.metrics import (
    AOPCLimits,
    aopc_limits,
    comprehensiveness,
    normalized_aopc,
    sufficiency,
)
from captum_aml.metrics.limits import LimitSearch, joined, limits_of, normalize
from tests._helpers.models import LinearLogits
from tests._helpers.removals import (
    FIRST,
    LAST,
    MASK,
    TEXT,
    Batch,
    Counting,
    Text,
    additive,
    bert,
    evaluator_of,
    padded,
    predicted,
    probability,
    words,
)

DOUBLE = torch.float64


def forward_of(model: nn.Module) -> Callable[..., Any]:
    def forward(ids: Tensor, attention_mask: Tensor, types: Tensor) -> Tensor:
        logits: Tensor = model(ids, attention_mask=attention_mask, token_type_ids=types).logits
        return logits

    return forward


def arguments(batch: Batch) -> dict[str, Any]:
    return {
        "baselines": batch.references,
        "additional_forward_args": (batch.attention_mask, batch.types),
    }


def all_orders(
    forward: Callable[..., Any], text: Text, metric: str, removal: str
) -> dict[tuple[int, ...], float]:
    """AOPC over every number of tokens, for every order of a text's tokens."""
    target = predicted(forward, text)
    subsets = {
        frozenset(kept): probability(forward, text, kept, removal, target)
        for size in range(len(text.tokens) + 1)
        for kept in itertools.combinations(text.tokens, size)
    }
    original = subsets[frozenset(text.tokens)]
    found = {}
    for order in itertools.permutations(text.tokens):
        total = 0.0
        for k in range(1, len(order) + 1):
            kept = order[:k] if metric == "sufficiency" else order[k:]
            total += original - subsets[frozenset(kept)]
        found[order] = total / len(order)
    return found


def scores_for(orders: list[tuple[int, ...]], width: int) -> Tensor:
    scores = torch.zeros(len(orders), width, dtype=DOUBLE)
    for row, order in enumerate(orders):
        for place, token in enumerate(order):
            scores[row, token] = -place
    return scores


@pytest.mark.parametrize("removal", ["mask", "delete", "pad"])
def test_the_limits_are_those_of_all_orders(removal: str) -> None:
    forward = forward_of(bert())
    texts = words([1, 2, 3, 4, 5, 5])
    batch = padded(texts)
    limits = aopc_limits(forward, batch.ids, **arguments(batch), removal=removal, batch_size=7)
    for metric in ("comprehensiveness", "sufficiency"):
        values = [all_orders(forward, text, metric, removal) for text in texts]
        best = scores_for([max(v, key=v.__getitem__) for v in values], batch.ids.shape[1])
        worst = scores_for([min(v, key=v.__getitem__) for v in values], batch.ids.shape[1])
        low = torch.tensor([min(v.values()) for v in values], dtype=DOUBLE)
        high = torch.tensor([max(v.values()) for v in values], dtype=DOUBLE)
        # Sufficiency's limits follow from comprehensiveness's.
        shift = 0 if metric == "comprehensiveness" else limits.full_drop / limits.n_tokens
        torch.testing.assert_close(limits.low - shift, low, rtol=0, atol=1e-10)
        torch.testing.assert_close(limits.high - shift, high, rtol=0, atol=1e-10)
        options: dict[str, Any] = {**arguments(batch), "removal": removal, "metric": metric}
        for scores, expected in ((best, 1.0), (worst, 0.0)):
            for known in (limits, None):
                got = normalized_aopc(forward, batch.ids, scores, limits=known, **options)
                # One token has one order.
                assert math.isnan(got[0])
                assert got[1:].tolist() == pytest.approx([expected] * 5, abs=1e-6)
        # Any order lies where its own value does.
        batch.scores.masked_fill_(batch.attention_mask == 0, 0.0)
        got = normalized_aopc(forward, batch.ids, batch.scores, limits=limits, **options)
        for row, text in enumerate(texts[1:], start=1):
            own = values[row][tuple(text.ranking)]
            expected = (own - low[row]) / (high[row] - low[row])
            assert got[row].item() == pytest.approx(expected.item(), abs=1e-6)
    assert limits.exact.all()
    assert limits.n_tokens.tolist() == [1, 2, 3, 4, 5, 5]


def test_an_additive_model_by_hand() -> None:
    # The tokens add 8, 4, 2, -2 and 1 of 32; masked places give 0.5 back. Without the first k,
    # best first (8, 4, 2, 1, -2), p falls by 8, 12, 14, 15, 13 less 0.5 k: a mean of 62 - 7.5 of 5.
    # Worst first (-2, 1, 2, 4, 8): -2, -1, 1, 5, 13, a mean of 16 - 7.5.
    ids = torch.tensor([TEXT])
    call: dict[str, Any] = {"baselines": MASK, "additional_forward_args": torch.ones_like(ids)}
    limits = aopc_limits(additive(), ids, **call)
    assert limits.high.item() == pytest.approx((62 - 7.5) / 32 / 5, abs=1e-12)
    assert limits.low.item() == pytest.approx((16 - 7.5) / 32 / 5, abs=1e-12)
    assert limits.full_drop.item() == pytest.approx(10.5 / 32, abs=1e-12)
    assert limits.n_passes == 2**5 - 1  # all subsets; the original is known
    assert limits.exact.tolist() == [True]
    best = torch.tensor([[8.0, 4, 2, -2, 1]])
    # In the order 8, 4, 2, -2, 1: 8, 12, 14, 12, 13, a sum of 59.
    in_order = torch.tensor([[5.0, 4, 3, 2, 1]])
    for scores, expected in ((best, 1), (-best, 0), (in_order, (59 - 16) / (62 - 16))):
        got = normalized_aopc(additive(), ids, scores, **call)
        assert got.item() == pytest.approx(expected, abs=1e-10)
    # For sufficiency the best order has 0: what is kept first matters most.
    for scores, expected in ((best, 0), (-best, 1)):
        got = normalized_aopc(additive(), ids, scores, metric="sufficiency", **call)
        assert got.item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("removal", ["mask", "delete"])
def test_a_wide_beam_finds_what_an_exhaustive_search_does(removal: str) -> None:
    forward = forward_of(bert())
    batch = padded(words([1, 6, 3, 5, 6]))
    call = arguments(batch)
    exact = aopc_limits(forward, batch.ids, **call, removal=removal)
    # No level of 6 tokens has more than 20 subsets.
    wide = aopc_limits(forward, batch.ids, **call, removal=removal, beam_size=20, max_exhaustive=0)
    torch.testing.assert_close(wide.low, exact.low, rtol=0, atol=1e-10)
    torch.testing.assert_close(wide.high, exact.high, rtol=0, atol=1e-10)
    assert exact.exact.all()
    assert not wide.exact.any()
    # A narrow one finds orders that exist, so that it stays within.
    narrow = aopc_limits(forward, batch.ids, **call, removal=removal, beam_size=1, max_exhaustive=2)
    assert (narrow.low >= exact.low - 1e-10).all()
    assert (narrow.high <= exact.high + 1e-10).all()
    assert (narrow.low <= narrow.high).all()
    assert narrow.exact.tolist() == [True, False, False, False, False]
    assert narrow.n_passes < exact.n_passes


def test_a_beam_of_one_is_a_greedy_search() -> None:
    forward = forward_of(bert())
    (text,) = words([7], seed=1)
    batch = padded([text])
    target = predicted(forward, text)
    original = probability(forward, text, text.tokens, "mask", target)
    ends = []
    for choose in (max, min):
        left, sums = list(text.tokens), 0.0
        while left:
            drops = {
                token: original
                - probability(forward, text, [i for i in left if i != token], "mask", target)
                for token in left
            }
            token = choose(drops, key=drops.__getitem__)
            left.remove(token)
            sums += drops[token]
        ends.append(sums / 7)
    limits = aopc_limits(forward, batch.ids, **arguments(batch), beam_size=1, max_exhaustive=6)
    assert [limits.high.item(), limits.low.item()] == pytest.approx(ends, abs=1e-10)


def test_beams_of_different_lengths_do_not_disturb_each_other() -> None:
    forward = forward_of(bert())
    texts = words([9, 4, 7, 10, 2], seed=2)
    batch = padded(texts)
    options: dict[str, Any] = {"beam_size": 2, "max_exhaustive": 3}
    together = aopc_limits(forward, batch.ids, **arguments(batch), **options, batch_size=64)
    alone = [
        aopc_limits(forward, one.ids, **arguments(one), **options)
        for one in (padded([text], left=True, extra=1) for text in texts)
    ]
    apart = joined(alone)
    for name in ("low", "high", "full_drop"):
        torch.testing.assert_close(getattr(together, name), getattr(apart, name))
    assert together.n_tokens.tolist() == apart.n_tokens.tolist() == [9, 4, 7, 10, 2]
    assert together.exact.tolist() == apart.exact.tolist() == [False] * 4 + [True]
    assert together.n_passes == apart.n_passes == sum(limits.n_passes for limits in alone)


@given(st.lists(st.integers(-8, 8), min_size=2, max_size=10), st.integers(1, 3))
def test_any_beam_is_exact_for_an_additive_model(weights: list[int], beam_size: int) -> None:
    # Sorting by contribution is the best order, and greedy search finds it.
    x = torch.tensor([weights], dtype=DOUBLE)
    x[x == 0] = 0.5

    def forward(x: Tensor) -> Tensor:
        return x.sum(dim=1)

    contributions = sorted(x[0].tolist(), reverse=True)
    n = len(contributions)
    high = sum((n - i) * c for i, c in enumerate(contributions)) / n
    low = sum((n - i) * c for i, c in enumerate(reversed(contributions))) / n
    for most in (0, 8):
        limits = aopc_limits(forward, x, beam_size=beam_size, max_exhaustive=most)
        assert limits.high.item() == pytest.approx(high, abs=1e-9)
        assert limits.low.item() == pytest.approx(low, abs=1e-9)


def test_the_search_takes_no_more_passes_than_said() -> None:
    texts = words([9, 10, 4], special=False)
    batch = padded(texts)
    weights = torch.rand(30, generator=torch.Generator().manual_seed(0)).double()
    counting = Counting(lambda ids, mask: (weights[ids] * mask).sum(dim=1).square())

    def forward(ids: Tensor, attention_mask: Tensor) -> Any:
        return counting(ids, attention_mask)

    beam = 2
    limits = aopc_limits(
        forward, batch.ids, MASK, batch.attention_mask, beam_size=beam, batch_size=16
    )
    assert limits.n_passes == len(counting.seen) - 3
    assert limits.n_passes <= beam * (9**2 + 10**2) + 2**4
    assert len(set(counting.seen)) == len(counting.seen)
    assert counting.largest <= 16


def test_examples_that_are_too_long_are_left_out() -> None:
    batch = padded(words([2, 9, 4]))
    evaluator = evaluator_of(
        forward_of(bert()), batch.ids, batch.references, (batch.attention_mask, batch.types)
    )
    limits = limits_of(evaluator, "mask", LimitSearch(beam_size=2, max_tokens=4))
    assert limits.low.isnan().tolist() == limits.high.isnan().tolist() == [False, True, False]
    assert limits.full_drop.isnan().tolist() == [False, True, False]
    assert limits.n_passes <= 4 + 16
    everything = limits_of(evaluator, "mask", LimitSearch(beam_size=2, max_tokens=None))
    assert not everything.low.isnan().any()


def test_what_has_one_order_or_none_has_no_value() -> None:
    ids = torch.tensor([[FIRST, LAST, 0, 0], [FIRST, 4, LAST, 0], [FIRST, 4, 5, LAST]])
    references = torch.where(ids > 3, MASK, ids)
    mask = (ids != 0).long()
    limits = aopc_limits(additive(), ids, references, mask)
    assert limits.low.isnan().tolist() == limits.high.isnan().tolist() == [True, False, False]
    assert limits.n_tokens.tolist() == [0, 1, 2]
    got = normalized_aopc(additive(), ids, torch.rand(3, 4), references, mask)
    assert got.isnan().tolist() == [True, True, False]
    alike = torch.tensor([[4, 4, 4]])  # no order differs from another
    got = normalized_aopc(additive(), alike, torch.rand(1, 3), MASK, torch.ones_like(alike))
    assert got.isnan().all()


def test_the_scale_is_that_of_the_published_convention() -> None:
    forward = forward_of(bert())
    batch = padded(words([4, 9]))
    call = arguments(batch)
    limits = aopc_limits(forward, batch.ids, **call, removal="delete")
    for metric in (comprehensiveness, sufficiency):
        aopc = metric(
            forward,
            batch.ids,
            batch.scores,
            **call,
            aopc=True,
            convention="naopc",
            removal="delete",
        )
        name = metric.__name__
        expected = normalize(aopc, limits, metric=name)
        got = normalized_aopc(
            forward, batch.ids, batch.scores, **call, metric=name, limits=limits, removal="delete"
        )
        assert torch.equal(got, expected)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"attributions": torch.full((1, 5), torch.nan)}, NonFiniteError, "attributions: "),
        ({"attributions": torch.rand(1, 6)}, InvalidInputError, "attributions: "),
        ({"metric": "log_odds"}, InvalidInputError, "metric: .*'log_odds'"),
        ({"beam_size": 0}, InvalidInputError, "beam_size: .*0"),
        ({"batch_size": -2}, InvalidInputError, "batch_size: .*-2"),
        ({"removal": "erase"}, InvalidInputError, "removal: .*'erase'"),
        ({"target": 9}, InvalidInputError, "target: "),
    ],
)
def test_bad_arguments_are_named(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    ids = torch.tensor([TEXT])
    call: dict[str, Any] = {
        "attributions": torch.rand(1, 5),
        "baselines": MASK,
        "additional_forward_args": torch.ones_like(ids),
        **options,
    }
    with pytest.raises(error, match=message):
        normalized_aopc(additive(), ids, **call)


def test_bad_searches_are_named() -> None:
    model = LinearLogits([1.0, 2.0], 0.0)
    x = torch.ones(2, 2)
    with pytest.raises(InvalidInputError, match=r"max_exhaustive: .*at most 20.*21"):
        aopc_limits(model, x, target=1, max_exhaustive=21)
    with pytest.raises(InvalidInputError, match=r"max_exhaustive: .*-1"):
        aopc_limits(model, x, target=1, max_exhaustive=-1)
    with pytest.raises(InvalidInputError, match=r"inputs: .*tuple of 2"):
        aopc_limits(lambda a, b: a + b, (x, x), target=1)
    limits: AOPCLimits = aopc_limits(model, x, target=1)
    one = replace(limits, **{n: getattr(limits, n)[:1] for n in ("low", "high", "full_drop")})
    with pytest.raises(InvalidInputError, match=r"limits: .*2 examples, got 1"):
        normalized_aopc(model, x, x, target=1, limits=one)
