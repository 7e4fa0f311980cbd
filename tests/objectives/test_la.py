"""LA's objective: the inverse and the size term alone."""

from __future__ import annotations

import math

import pytest
import torch

from captum_aml.objectives import AMLObjective, LAObjective, MaskedOutcome

DOUBLE = torch.float64


def outcome(kept: torch.Tensor | None) -> MaskedOutcome:
    return MaskedOutcome(
        kept=kept,
        complement=torch.tensor([[0.6, 0.4], [0.2, 0.8]], dtype=DOUBLE).log(),
        aim=torch.tensor([[0.9, 0.1], [0.0, 1.0]], dtype=DOUBLE),
        target_class=torch.tensor([0, 1]),
        mask=torch.tensor([[0.5, 0.75], [0.25, 0.9]], dtype=DOUBLE),
        maskable=torch.tensor([[True, True], [True, False]]),
    )


def test_the_terms_and_their_weighted_sum_by_hand() -> None:
    terms = LAObjective(inverse_weight=2.0, size_weight=0.5, eps=0.001)(outcome(None))
    inverse = [-math.log(0.401), -math.log(0.201)]
    size = [(math.log(2) + math.log(4)) / 2, -math.log(0.75)]
    assert terms.parts["inverse"].tolist() == pytest.approx(inverse, rel=1e-13)
    assert terms.parts["size"].tolist() == pytest.approx(size, rel=1e-13)
    expected = [2 * i + 0.5 * s for i, s in zip(inverse, size, strict=True)]
    assert terms.total.tolist() == pytest.approx(expected, rel=1e-13)
    assert list(terms.parts) == ["inverse", "size"]


def test_it_is_aml_without_the_prediction_term() -> None:
    whole = outcome(torch.tensor([[0.75, 0.25], [0.5, 0.5]], dtype=DOUBLE).log())
    settings = {"inverse_weight": 0.7, "size_weight": 1.3, "eps": 1e-3}
    aml = AMLObjective(prediction_weight=0.0, **settings)(whole)
    la = LAObjective(**settings)(whole)
    assert torch.equal(la.total, aml.total)


def test_of_the_log_odds_it_has_the_second_half() -> None:
    log_p, log_rest = (torch.tensor([v], dtype=DOUBLE).log() for v in (0.8, 0.2))
    for weight in (1.0, 0.3):
        odds = LAObjective(inverse_weight=weight).log_odds(log_p, log_rest)
        assert odds.tolist() == pytest.approx([weight * math.log(5)], rel=1e-13)
    aml = AMLObjective(prediction_weight=0.0).log_odds(log_p, log_rest)
    assert torch.equal(LAObjective().log_odds(log_p, log_rest), aml)


def test_what_is_kept_plays_no_part() -> None:
    objective = LAObjective()
    assert not objective.uses_kept
    assert objective.uses_complement
