"""The terms of the objectives, against torch's own losses and against numbers by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from captum_aml.exceptions import InvalidInputError
from captum_aml.objectives import (
    AMLObjective,
    LAObjective,
    Terms,
    inverse_term,
    prediction_term,
    size_term,
)

DOUBLE = torch.float64
EPS = 1e-6


# Prediction


@given(st.integers(1, 4), st.integers(2, 5), st.integers(0, 1000))
def test_the_prediction_term_is_torchs_soft_cross_entropy(n: int, c: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, c, generator=g, dtype=DOUBLE) * 3
    aim = torch.randn(n, c, generator=g, dtype=DOUBLE).softmax(1)
    torch.testing.assert_close(
        prediction_term(logits.log_softmax(1), aim),
        F.cross_entropy(logits, aim, reduction="none"),
        rtol=1e-13,
        atol=1e-13,
    )


def test_the_prediction_term_by_hand() -> None:
    kept = torch.tensor([[0.75, 0.25]], dtype=DOUBLE).log()
    aim = torch.tensor([[0.5, 0.5]], dtype=DOUBLE)
    expected = 0.5 * math.log(4 / 3) + 0.5 * math.log(4)
    assert prediction_term(kept, aim).item() == pytest.approx(expected, rel=1e-14)


def test_the_prediction_term_is_least_where_the_prediction_is_kept() -> None:
    """Gibbs: the cross-entropy is at least the entropy, and equal to it only at the aim."""
    aim = torch.tensor([[0.2, 0.5, 0.3]], dtype=DOUBLE)
    entropy = -(aim * aim.log()).sum()
    assert prediction_term(aim.log(), aim).item() == pytest.approx(entropy.item(), rel=1e-14)
    other = torch.tensor([[0.3, 0.4, 0.3]], dtype=DOUBLE)
    assert prediction_term(other.log(), aim).item() > entropy + 1e-3


# Inverse


@given(st.integers(1, 4), st.integers(2, 5), st.integers(0, 1000), st.floats(0.5, 8))
def test_the_inverse_term_is_minus_log_of_what_the_others_have(
    n: int, c: int, seed: int, scale: float
) -> None:
    g = torch.Generator().manual_seed(seed)
    log_p = (torch.randn(n, c, generator=g, dtype=DOUBLE) * scale).log_softmax(1)
    target = torch.randint(0, c, (n,), generator=g)
    p = log_p.exp()[torch.arange(n), target]
    # log(1 - p + eps) = log1p(-p + eps); 1 - p loses digits to cancellation where p is near 1.
    expected = -torch.log1p(-p + EPS)
    torch.testing.assert_close(inverse_term(log_p, target, eps=EPS), expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("target", [0, 1])
def test_the_inverse_term_by_hand(target: int) -> None:
    complement = torch.tensor([[0.9, 0.1]], dtype=DOUBLE).log()
    rest = 0.1 if target == 0 else 0.9
    term = inverse_term(complement, torch.tensor([target]), eps=0.01)
    assert term.item() == pytest.approx(-math.log(rest + 0.01), rel=1e-13)


def test_the_inverse_term_lies_between_its_limits() -> None:
    sure = torch.tensor([[0.0, -200.0], [-200.0, 0.0]], dtype=DOUBLE)
    terms = inverse_term(sure, torch.tensor([0, 0]), eps=EPS)
    # Nothing left for the others: -log eps. Everything: -log(1 + eps), just below zero.
    assert terms[0].item() == pytest.approx(-math.log(EPS), rel=1e-12)
    assert terms[1].item() == pytest.approx(-math.log1p(EPS), rel=1e-6)


@pytest.mark.parametrize("gap", [10.0, 18.0])
def test_the_inverse_terms_gradient_lives_where_p_rounds_to_one(gap: float) -> None:
    """d/dz -log(1 - sigmoid(z) + eps) = p (1 - p) / (1 - p + eps), in float32 at p = 1 - 2e-8."""
    logits = torch.tensor([[0.0, gap]], requires_grad=True)
    (inverse_term(logits.log_softmax(1), torch.tensor([1]), eps=EPS)).sum().backward()
    rest = 1 / (1 + math.exp(gap))
    expected = (1 - rest) * rest / (rest + EPS)
    if gap == 18.0:
        assert torch.sigmoid(torch.tensor(gap)) == 1  # what the naive form would divide by
    assert logits.grad is not None
    # float32 logsumexp near zero: relative precision of the small number itself.
    assert logits.grad[0, 1].item() == pytest.approx(expected, rel=1e-4)


# Size


def test_the_size_terms_by_hand() -> None:
    mask = torch.tensor([[0.5, 0.75, 0.9], [0.2, 0.0, 0.6]], dtype=DOUBLE)
    maskable = torch.tensor([[True, True, False], [True, True, True]])
    bce = size_term(mask, maskable, "bce")
    assert bce[0].item() == pytest.approx((math.log(2) + math.log(4)) / 2, rel=1e-14)
    assert bce[1].item() == pytest.approx(-(math.log(0.8) + math.log(0.4)) / 3, rel=1e-14)
    l1 = size_term(mask, maskable, "l1")
    assert l1.tolist() == pytest.approx([1.25 / 2, 0.8 / 3], rel=1e-14)


@given(st.integers(0, 1000))
def test_the_size_term_is_the_mean_of_minus_log_one_minus_m(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    mask = torch.rand(3, 4, generator=g, dtype=DOUBLE) * 0.999
    maskable = torch.rand(3, 4, generator=g) < 0.6
    for i in range(3):
        own = [-math.log(1 - mask[i, u].item()) for u in range(4) if maskable[i, u]]
        expected = sum(own) / len(own) if own else 0.0
        actual = size_term(mask, maskable, "bce")[i].item()
        assert actual == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("penalty", ["bce", "l1"])
def test_units_that_take_no_part_have_no_size_and_no_gradient(penalty: Any) -> None:
    mask = torch.tensor([[0.3, 1.0], [0.5, 0.5]], requires_grad=True)
    maskable = torch.tensor([[True, False], [False, False]])
    terms = size_term(mask, maskable, penalty)
    terms.sum().backward()
    assert terms[1].item() == 0.0
    assert mask.grad is not None
    assert mask.grad.tolist() == [
        [pytest.approx(1 / 0.7 if penalty == "bce" else 1.0), 0.0],
        [0.0, 0.0],
    ]


def test_a_full_mask_costs_much_but_is_finite() -> None:
    mask = torch.ones(1, 1, requires_grad=True)
    term = size_term(mask, torch.ones(1, 1, dtype=torch.bool), "bce")
    term.sum().backward()
    assert term.item() == 100.0  # torch's own bound on the logarithm
    assert mask.grad is not None
    assert mask.grad.isfinite().all()


# Terms


def test_terms_are_chosen_example_by_example() -> None:
    a = Terms(torch.tensor([1.0, 2.0]), {"size": torch.tensor([3.0, 4.0])})
    b = Terms(torch.tensor([5.0, 6.0]), {"size": torch.tensor([7.0, 8.0])})
    mixed = a.where(torch.tensor([True, False]), b)
    assert mixed.total.tolist() == [1.0, 6.0]
    assert mixed.parts["size"].tolist() == [3.0, 8.0]
    joined = Terms.concatenate([a, b])
    assert joined.total.tolist() == [1.0, 2.0, 5.0, 6.0]
    assert joined.parts["size"].tolist() == [3.0, 4.0, 7.0, 8.0]


def test_detached_terms_have_no_graph() -> None:
    value = torch.ones(2, requires_grad=True) * 2
    detached = Terms(value, {"size": value * 3}).detach()
    assert not detached.total.requires_grad
    assert not detached.parts["size"].requires_grad
    assert detached.parts["size"].tolist() == [6.0, 6.0]


# Settings


@pytest.mark.parametrize("make", [AMLObjective, LAObjective])
@pytest.mark.parametrize(
    ("settings", "fragments"),
    [
        ({"inverse_weight": -1.0}, ("inverse_weight", "at least 0", "-1.0")),
        ({"size_weight": math.nan}, ("size_weight", "at least 0", "nan")),
        ({"size_weight": math.inf}, ("size_weight", "at least 0", "inf")),
        ({"size_weight": "1"}, ("size_weight", "number", "'1'")),
        ({"size_penalty": "l2"}, ("size_penalty", "('bce', 'l1')", "'l2'")),
        ({"eps": 0.0}, ("eps", "between 0 and 1", "0.0")),
        ({"eps": 1.0}, ("eps", "between 0 and 1", "1.0")),
        ({"eps": math.nan}, ("eps", "between 0 and 1", "nan")),
        ({"eps": "small"}, ("eps", "between 0 and 1", "'small'")),
    ],
)
def test_settings_are_checked(
    make: Any, settings: dict[str, Any], fragments: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        make(**settings)
    assert str(caught.value).startswith(f"{fragments[0]}: ")
    assert all(f in str(caught.value) for f in fragments[1:])


def test_not_all_weights_may_be_zero() -> None:
    with pytest.raises(InvalidInputError, match="prediction_weight, inverse_weight, size_weight"):
        AMLObjective(prediction_weight=0, inverse_weight=0, size_weight=0)
    with pytest.raises(InvalidInputError, match=r"inverse_weight, size_weight: .* all 0"):
        LAObjective(inverse_weight=0, size_weight=0)
