"""Contributions from scores: they sum to a difference, and keep the order and the zeros."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from captum_aml.attr.contributions import LARGEST_LOGIT, NEUTRAL_LOGIT, as_logits, completed

DOUBLE = torch.float64


def one(scores: list[float], difference: float, scale: float | None = None) -> list[float]:
    """The contributions of one example in which everything is maskable."""
    (row,) = completed(
        torch.tensor([scores], dtype=DOUBLE),
        torch.tensor([difference], dtype=DOUBLE),
        torch.ones(1, len(scores), dtype=torch.bool),
        None if scale is None else torch.tensor([scale], dtype=DOUBLE),
    ).tolist()
    return row


def test_scores_that_sum_to_the_difference_stay_as_they_are() -> None:
    assert one([0.5, -0.25, 0.0, 1.0], 1.25, 1.0) == [0.5, -0.25, 0.0, 1.0]


def test_what_is_lacking_is_shared_out_by_size() -> None:
    # 0.6 is lacking, and sizes sum to 2.4: a quarter of each.
    assert one([1.2, -0.8, 0.4], 1.4, 1.0) == pytest.approx([1.5, -0.6, 0.5])
    # The scale counts first: twice the scores sum to 1.6, and 0.4 is too much.
    assert one([1.2, -0.8, 0.4], 1.2, 2.0) == pytest.approx([2.2, -1.7333333, 0.7333333])


def test_what_would_turn_scores_over_is_shared_evenly() -> None:
    # -1.5 is lacking, more than 0.9 of the sizes' sum of 1: -0.75 for each that is not 0.
    assert one([0.75, 0.25, 0.0], -0.5, 1.0) == pytest.approx([0.0, -0.5, 0.0])


def test_without_a_scale_scores_are_shares() -> None:
    assert one([1.0, 3.0, 0.0], 2.0) == pytest.approx([0.5, 1.5, 0.0])
    # No slope, or one that points the wrong way, is no scale.
    for scale in (0.0, -1.0):
        assert one([1.0, 3.0, 0.0], 2.0, scale) == pytest.approx([0.5, 1.5, 0.0])


def test_scores_that_are_all_0_share_evenly() -> None:
    assert one([0.0, 0.0, 0.0, 0.0], 2.0) == [0.5] * 4
    assert one([0.0, 0.0], 0.0) == [0.0, 0.0]


@pytest.mark.parametrize("difference", [0.0, 3.0])
def test_what_is_not_maskable_gets_nothing(difference: float) -> None:
    scores = torch.tensor([[1.0, 5.0, 2.0], [0.0, 7.0, 0.0], [1.0, 1.0, 1.0]])
    maskable = torch.tensor([[True, False, True], [True, False, True], [False] * 3])
    got = completed(scores, torch.full((3,), difference), maskable)
    assert bool((got[~maskable] == 0).all())
    assert got.sum(dim=1).tolist() == pytest.approx([difference, difference, 0.0], abs=1e-6)


numbers = st.floats(-10, 10).map(lambda x: 0.0 if abs(x) < 1e-3 else x)


@given(
    st.lists(numbers, min_size=1, max_size=6), numbers, st.none() | st.floats(-1, 5), st.booleans()
)
def test_sums_orders_and_zeros(
    scores: list[float], difference: float, scale: float | None, beside: bool
) -> None:
    got = one(scores, difference, scale)
    # Rounding of sums of numbers of this size.
    size = 1e-11 * (1 + abs(difference) + 5 * sum(map(abs, scores)))
    assert math.isclose(math.fsum(got), difference, abs_tol=size)
    counts = [i for i, s in enumerate(scores) if s != 0]
    if counts:
        assert all(got[i] == 0 for i in range(len(scores)) if i not in counts)
    for i in counts:
        for j in counts:
            if scores[i] > scores[j]:
                assert got[i] >= got[j] - size
    if beside:
        # Another example in the batch, and scores that do not take part, change nothing.
        padded: Tensor = torch.tensor([[*scores, 3.0], [1.0] * (len(scores) + 1)], dtype=DOUBLE)
        maskable = torch.ones_like(padded, dtype=torch.bool)
        maskable[0, -1] = False
        scales = None if scale is None else torch.tensor([scale, 1.0], dtype=DOUBLE)
        row = completed(padded, torch.tensor([difference, 1.0], dtype=DOUBLE), maskable, scales)[
            0
        ].tolist()
        assert row == pytest.approx([*got, 0.0], rel=1e-12, abs=1e-13)


def test_logits_are_relative_to_the_largest_effect() -> None:
    effects = torch.tensor([[2.0, -1.0, 0.0], [0.0, 0.0, 0.0], [-4.0, 0.0, 1.0]])
    low, high = NEUTRAL_LOGIT, LARGEST_LOGIT
    expected = [
        [low + high, low - high / 2, low],
        [low, low, low],
        [low - high, low, low + high / 4],
    ]
    assert as_logits(effects).tolist() == expected
    # A unit of measurement does not matter.
    assert torch.equal(as_logits(8 * effects), as_logits(effects))
