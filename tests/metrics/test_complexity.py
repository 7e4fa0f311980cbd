"""Entropy of explanations: by hand, by a loop, by SciPy, and what must not change it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy as scipy_entropy
from torch import Tensor

from captum_aml.exceptions import InvalidInputError, NonFiniteError
from captum_aml.metrics.complexity import effective_tokens, entropy

DOUBLE = torch.float64


def batch(seed: int, n: int, length: int) -> tuple[Tensor, Tensor]:
    """Signed scores, some of them 0, and positions of which every example has one."""
    g = torch.Generator().manual_seed(seed)
    scores = torch.randn(n, length, generator=g, dtype=DOUBLE)
    scores[torch.rand(n, length, generator=g) < 0.2] = 0.0
    tokens = torch.rand(n, length, generator=g) < 0.7
    tokens[:, 0] = True
    return scores, tokens


def by_loop(scores: list[float], tokens: list[bool]) -> float:
    kept = [abs(s) for s, t in zip(scores, tokens, strict=True) if t]
    total = sum(kept)
    shares = [s / total for s in kept] if total else [1 / len(kept)] * len(kept)
    return -sum(s * math.log(s) for s in shares if s)


def test_shares_of_a_half_and_two_quarters_by_hand() -> None:
    # |-2|, 1, 1 of 4: H = 1/2 ln 2 + 2 * 1/4 ln 4 = 3/2 ln 2, so 2^(3/2) tokens.
    scores = torch.tensor([[-2.0, 1.0, 0.0, 1.0]], dtype=DOUBLE)
    torch.testing.assert_close(entropy(scores), torch.tensor([1.5 * math.log(2)], dtype=DOUBLE))
    torch.testing.assert_close(effective_tokens(scores), torch.tensor([2**1.5], dtype=DOUBLE))


def test_the_limits_are_one_token_and_all_tokens() -> None:
    scores = torch.tensor([[0.0, -3.0, 0.0, 0.0, 0.0], [0.2, -0.2, 0.2, 0.2, -0.2]], dtype=DOUBLE)
    torch.testing.assert_close(effective_tokens(scores), torch.tensor([1.0, 5.0], dtype=DOUBLE))
    assert entropy(scores)[0] == 0


def test_scores_that_are_all_zero_count_as_equal() -> None:
    tokens = torch.tensor([[True, True, True, False], [True, False, False, False]])
    torch.testing.assert_close(
        effective_tokens(torch.zeros(2, 4, dtype=DOUBLE), tokens),
        torch.tensor([3.0, 1.0], dtype=DOUBLE),
    )


def test_an_example_without_tokens_has_no_value() -> None:
    values = entropy(torch.ones(2, 3), torch.tensor([[False] * 3, [True] * 3]))
    assert values[0].isnan()
    assert values[1].item() == pytest.approx(math.log(3))


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 7))
def test_a_loop_over_tokens_gives_the_same(seed: int, n: int, length: int) -> None:
    scores, tokens = batch(seed, n, length)
    expected = [by_loop(s, t) for s, t in zip(scores.tolist(), tokens.tolist(), strict=True)]
    torch.testing.assert_close(entropy(scores, tokens), torch.tensor(expected, dtype=DOUBLE))
    torch.testing.assert_close(
        effective_tokens(scores, tokens), torch.tensor(expected, dtype=DOUBLE).exp()
    )


def test_scipy_gives_the_same() -> None:
    scores, _ = batch(3, 5, 9)
    expected = scipy_entropy(scores.abs().numpy(), axis=1)
    torch.testing.assert_close(entropy(scores), torch.from_numpy(expected))


@given(st.integers(0, 10_000), st.sampled_from([-1e200, -3.0, 1e-300, 0.25, 1e306]))
def test_scaling_changes_nothing_however_large(seed: int, factor: float) -> None:
    scores, tokens = batch(seed, 3, 6)
    torch.testing.assert_close(entropy(scores * factor, tokens), entropy(scores, tokens))


@given(st.integers(0, 10_000))
def test_order_of_tokens_and_examples_does_not_matter(seed: int) -> None:
    scores, tokens = batch(seed, 4, 6)
    g = torch.Generator().manual_seed(seed)
    rows, columns = torch.randperm(4, generator=g), torch.randperm(6, generator=g)
    torch.testing.assert_close(
        entropy(scores[rows][:, columns], tokens[rows][:, columns]), entropy(scores, tokens)[rows]
    )


def test_what_does_not_count_is_ignored_even_nan() -> None:
    scores, tokens = batch(1, 3, 6)
    padded = torch.cat([torch.full((3, 2), torch.nan, dtype=DOUBLE), scores], dim=1)
    padding = torch.zeros(3, 2, dtype=torch.bool)
    torch.testing.assert_close(
        entropy(padded, torch.cat([padding, tokens], dim=1)), entropy(scores, tokens)
    )


def test_half_precision_is_computed_in_single() -> None:
    scores = torch.tensor([[-2.0, 1.0, 0.0, 1.0]], dtype=torch.float16, requires_grad=True)
    value = entropy(scores)
    assert value.dtype == torch.float32
    assert not value.requires_grad
    # One rounding in single precision.
    assert value.item() == pytest.approx(1.5 * math.log(2), rel=1e-6)


@pytest.mark.parametrize("metric", [entropy, effective_tokens])
@pytest.mark.parametrize(
    ("scores", "tokens", "message"),
    [
        ([[1.0]], None, "attributions: expected a tensor .* got list"),
        (torch.ones(3), None, r"attributions: .*\(N, L\).* got torch.float32 of shape \(3,\)"),
        (torch.ones(2, 3).long(), None, "attributions: expected floating point .* got torch.int64"),
        (torch.ones(0, 3), None, r"attributions: .* at least 1, got .* shape \(0, 3\)"),
        (torch.ones(2, 3), [[True] * 3] * 2, "tokens: expected a bool tensor, got list"),
        (torch.ones(2, 3), torch.ones(2, 3), "tokens: expected bool .* got torch.float32"),
        (torch.ones(2, 3), torch.ones(3).bool(), r"tokens: .* \(2, 3\).* got .* shape \(3,\)"),
    ],
)
def test_wrong_arguments_are_named(metric, scores, tokens, message) -> None:
    with pytest.raises(InvalidInputError, match=message):
        metric(scores, tokens)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_score_that_is_not_finite_is_an_error_that_names_its_row(bad: float) -> None:
    scores = torch.ones(3, 2)
    scores[1, 1] = bad
    with pytest.raises(NonFiniteError, match=r"attributions: expected finite .*rows \[1\]"):
        entropy(scores)
