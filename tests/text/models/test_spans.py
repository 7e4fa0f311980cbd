"""Log-odds of spans against sums over all pairs of tokens."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from captum_aml.text.models.spans import best_span, span_logits, token_log_probabilities

LENGTH = 6


def drawn(seed: int = 0) -> tuple[Tensor, Tensor]:
    logits = torch.randn(2, 3, LENGTH, generator=torch.Generator().manual_seed(seed)).double()
    allowed = torch.tensor([True, False, True, True, True, False])
    return token_log_probabilities(logits[0], allowed), token_log_probabilities(logits[1], allowed)


def probability(start: Tensor, end: Tensor, span: tuple[int, int]) -> float:
    """The sum over the pairs of tokens that an outcome is made of."""
    first, last = span
    pairs = ((a, b) for a in range(LENGTH) for b in range(LENGTH))
    chosen = [(a, b) for a, b in pairs if first in (-1, a) and last in (-1, b)]
    return sum(float(start[a].exp() * end[b].exp()) for a, b in chosen)


@pytest.mark.parametrize(
    "spans",
    [
        [(2, 3)],
        [(2, 3), (4, 4)],
        [(2, 3), (2, 4), (3, 4)],
        [(0, 0), (2, 2), (2, 4)],
        [(2, -1)],
        [(2, -1), (4, -1)],
        [(-1, 3)],
        [(-1, 3), (-1, 0)],
    ],
)
def test_logits_are_those_of_sums_over_pairs(spans: list[tuple[int, int]]) -> None:
    start, end = drawn()
    flat = torch.tensor([border for span in spans for border in span]).repeat(3, 1)
    logits = span_logits(start, end, flat)
    for row in range(3):
        listed = [probability(start[row], end[row], span) for span in spans]
        expected = torch.tensor([*listed, 1 - sum(listed)])
        torch.testing.assert_close(logits[row].softmax(dim=0), expected, atol=1e-6, rtol=1e-4)
        odds = torch.tensor(listed[0] / (1 - listed[0]))
        torch.testing.assert_close(logits[row, 0].exp(), odds, atol=1e-6, rtol=1e-4)


def test_the_only_possible_span_is_certain_and_has_gradients() -> None:
    logits = torch.zeros(1, 3, requires_grad=True)
    only = token_log_probabilities(logits, torch.tensor([[False, True, False]]))
    found = span_logits(only, only, torch.tensor([[1, 1]]))
    assert found.softmax(dim=1)[0, 0] == 1
    (gradient,) = torch.autograd.grad(found[0, 0], logits)
    assert gradient.isfinite().all()


def test_the_best_span_is_the_likeliest_that_is_not_too_long() -> None:
    start, end = (each[0] for each in drawn(seed=2))
    for max_length in (1, 2, 4):
        spans = [(a, b) for a in range(2, 5) for b in range(a, min(a + max_length, 5))]
        expected = max(spans, key=lambda span: float(start[span[0]] + end[span[1]]))
        assert best_span(start, end, 2, 5, max_length) == expected
