"""Pairs of overlapping spans and their pools, against loops over characters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_aml.exceptions import InvalidInputError
from captum_aml.maskers._alignment import checked_pooling, overlapping, pooled, token_spans

SPANS = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 8)).map(lambda s: (s[0], s[0] + s[1])), max_size=12
)
POOLS = {"max": max, "min": min, "mean": lambda values: sum(values) / len(values)}


def array(spans: list[tuple[int, int]]) -> np.ndarray:
    return np.array(spans, dtype=np.int64).reshape(-1, 2)


def naive_pairs(ours: list[tuple[int, int]], theirs: list[tuple[int, int]]) -> list[list[int]]:
    return [
        [i, j]
        for i, a in enumerate(ours)
        for j, b in enumerate(theirs)
        if set(range(*a)) & set(range(*b))
    ]


@given(ours=SPANS, theirs=SPANS)
def test_pairs_are_those_that_share_a_character(ours: list, theirs: list) -> None:
    # In no particular order, nested, repeated and empty.
    mine, others = overlapping(array(ours), array(theirs))
    assert sorted(map(list, zip(mine.tolist(), others.tolist(), strict=True))) == naive_pairs(
        ours, theirs
    )
    assert mine.tolist() == sorted(mine.tolist())


@given(lengths=st.lists(st.integers(0, 5), max_size=10))
def test_spans_follow_one_another(lengths: list[int]) -> None:
    spans = token_spans(lengths)
    assert [end - start for start, end in spans.tolist()] == lengths
    assert [start for start, _ in spans.tolist()] == [sum(lengths[:i]) for i in range(len(lengths))]


def test_half_open_spans_that_touch_do_not_overlap() -> None:
    mine, others = overlapping(array([(0, 3), (3, 5)]), array([(0, 2), (2, 4), (5, 6)]))
    assert list(zip(mine.tolist(), others.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 1)]


def test_many_tokens_take_memory_in_the_number_of_pairs() -> None:
    # A dense comparison of these would take forty gigabytes.
    n = 200_000
    ours, theirs = token_spans([2] * n), token_spans([3] * (2 * n // 3))
    mine, others = overlapping(ours, theirs)
    assert len(mine) < 2 * n
    # Character 100,001 is of the tokens number 50,000 and 33,333.
    assert others[mine == 50_000].tolist() == [33_333]
    assert others[mine == 50_002].tolist() == [33_334, 33_335]


@pytest.mark.parametrize("pooling", POOLS)
@given(ours=SPANS, theirs=SPANS, seed=st.integers(0, 99))
@settings(max_examples=50)
def test_pools_are_those_of_the_partners(pooling: str, ours: list, theirs: list, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(len(theirs), dtype=torch.float64, generator=generator)
    partners = overlapping(array(ours), array(theirs))
    pools, has_partner = pooled(
        values,
        tuple(torch.from_numpy(p) for p in partners),  # type: ignore[arg-type]
        len(ours),
        checked_pooling(pooling),
    )
    pairs = naive_pairs(ours, theirs)
    for i in range(len(ours)):
        own = [float(values[j]) for k, j in pairs if k == i]
        assert bool(has_partner[i]) == bool(own)
        # The mean may be summed in another order.
        assert float(pools[i]) == pytest.approx(POOLS[pooling](own) if own else 0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [("max", [0, 1, 0]), ("min", [1, 0, 0]), ("mean", [0.5, 0.5, 0])],
)
def test_gradients_reach_what_was_pooled(pooling: str, expected: list[float]) -> None:
    values = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    pools, _ = pooled(
        values, (torch.tensor([0, 0]), torch.tensor([0, 1])), 2, checked_pooling(pooling)
    )
    pools.sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == expected


@pytest.mark.parametrize("pooling", ["sum", "MAX", "", None, 3])
def test_an_unknown_pooling_is_refused(pooling: object) -> None:
    with pytest.raises(InvalidInputError, match=r"^pooling: expected one of \('max', 'mean', 'mi"):
        checked_pooling(pooling)  # type: ignore[arg-type]
