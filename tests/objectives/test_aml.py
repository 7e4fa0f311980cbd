"""AML's objective: three terms and their weighted sum."""

from __future__ import annotations

import math

import pytest
import torch

from captum_aml.objectives import AMLObjective, LogOddsObjective, MaskedOutcome

DOUBLE = torch.float64


def outcome() -> MaskedOutcome:
    return MaskedOutcome(
        kept=torch.tensor([[0.75, 0.25], [0.5, 0.5]], dtype=DOUBLE).log(),
        complement=torch.tensor([[0.6, 0.4], [0.2, 0.8]], dtype=DOUBLE).log(),
        aim=torch.tensor([[0.9, 0.1], [0.0, 1.0]], dtype=DOUBLE),
        target_class=torch.tensor([0, 1]),
        mask=torch.tensor([[0.5, 0.75], [0.25, 0.9]], dtype=DOUBLE),
        maskable=torch.tensor([[True, True], [True, False]]),
    )


EPS = 0.001
PREDICTION = [-(0.9 * math.log(0.75) + 0.1 * math.log(0.25)), math.log(2)]
INVERSE = [-math.log(0.4 + EPS), -math.log(0.2 + EPS)]
SIZE = [(math.log(2) + math.log(4)) / 2, -math.log(0.75)]


def test_the_terms_and_their_weighted_sum_by_hand() -> None:
    objective = AMLObjective(prediction_weight=2.0, inverse_weight=0.5, size_weight=3.0, eps=EPS)
    terms = objective(outcome())
    assert terms.parts["prediction"].tolist() == pytest.approx(PREDICTION, rel=1e-13)
    assert terms.parts["inverse"].tolist() == pytest.approx(INVERSE, rel=1e-13)
    assert terms.parts["size"].tolist() == pytest.approx(SIZE, rel=1e-13)
    expected = [2 * p + 0.5 * i + 3 * s for p, i, s in zip(PREDICTION, INVERSE, SIZE, strict=True)]
    assert terms.total.tolist() == pytest.approx(expected, rel=1e-13)
    assert list(terms.parts) == ["prediction", "inverse", "size"]


def test_the_l1_penalty_is_the_mean_mask() -> None:
    terms = AMLObjective(size_penalty="l1")(outcome())
    assert terms.parts["size"].tolist() == pytest.approx([0.625, 0.25], rel=1e-14)


def test_terms_are_given_before_their_weights() -> None:
    terms = AMLObjective(prediction_weight=0.0, inverse_weight=0.0, size_weight=2.0)(outcome())
    assert terms.parts["prediction"].tolist() == pytest.approx(PREDICTION, rel=1e-13)
    assert terms.total.tolist() == pytest.approx([2 * s for s in SIZE], rel=1e-13)


def test_the_log_odds_are_the_difference_of_both_terms_logarithms() -> None:
    log_p = torch.tensor([0.8, 0.25], dtype=DOUBLE).log()
    log_rest = torch.tensor([0.2, 0.75], dtype=DOUBLE).log()
    odds = AMLObjective().log_odds(log_p, log_rest)
    assert odds.tolist() == pytest.approx([math.log(4), -math.log(3)], rel=1e-13)
    weighted = AMLObjective(prediction_weight=2.0, inverse_weight=0.5, size_weight=9.0)
    expected = [
        2 * math.log(0.8) - 0.5 * math.log(0.2),
        2 * math.log(0.25) - 0.5 * math.log(0.75),
    ]
    assert weighted.log_odds(log_p, log_rest).tolist() == pytest.approx(expected, rel=1e-13)
    assert isinstance(weighted, LogOddsObjective)


def test_over_a_pair_the_terms_gradient_is_that_of_the_log_odds() -> None:
    """The prediction term at a mask and the inverse term at its complement, each of them in turn.

    The complement's term changes its sign with the mask, so that what is descended is the log-odds
    at both.
    """
    generator = torch.Generator().manual_seed(0)
    to_logits = torch.randn(4, 3, generator=generator, dtype=DOUBLE)
    first = torch.rand(1, 4, generator=generator, dtype=DOUBLE)
    chosen = torch.tensor([1])
    objective = AMLObjective(prediction_weight=0.7, inverse_weight=1.3, size_weight=0.0, eps=1e-12)

    def log_probs(mask: torch.Tensor) -> torch.Tensor:
        return (mask @ to_logits).log_softmax(dim=1)

    of_terms, of_odds = torch.zeros(1, 4, dtype=DOUBLE), torch.zeros(1, 4, dtype=DOUBLE)
    for mask in (first, 1 - first):
        mask = mask.clone().requires_grad_()
        terms = objective(
            MaskedOutcome(
                kept=log_probs(mask),
                complement=log_probs(1 - mask),
                aim=torch.tensor([[0.0, 1.0, 0.0]], dtype=DOUBLE),
                target_class=chosen,
                mask=mask,
                maskable=torch.ones(1, 4, dtype=torch.bool),
            )
        )
        of_terms += torch.autograd.grad(terms.total.sum(), mask)[0]
        log_p = log_probs(mask)[:, 1]
        odds = objective.log_odds(log_p, (1 - log_p.exp()).log())
        of_odds += torch.autograd.grad(odds.sum(), mask)[0]
    torch.testing.assert_close(of_terms, -of_odds, rtol=1e-9, atol=1e-11)


def test_the_published_defaults() -> None:
    objective = AMLObjective()
    assert (objective.prediction_weight, objective.inverse_weight, objective.size_weight) == (
        1.0,
        1.0,
        1.0,
    )
    assert objective.size_penalty == "bce"
    assert objective.uses_kept
    assert objective.uses_complement
