"""Tuning for given instances, against Adam in plain Python with gradients worked out by hand."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from captum_aml._utils.checks import check_learning_rate
from captum_aml.exceptions import InvalidInputError, NoGradientError, NonFiniteError
from captum_aml.masking.problem import MaskingProblem
from captum_aml.objectives import AMLObjective, MaskedOutcome, Objective, Terms
from captum_aml.tuning import MaskLogits, TuningResult, descend
from tests._helpers import references
from tests._helpers.models import LinearLogits, PlantedClassifier, planted_texts, problem_for

DOUBLE = torch.float64
WEIGHTS, BIAS = [2.0, -1.0, 0.5, 1.5], -0.25
TERM_WEIGHTS = (1.0, 0.8, 0.3)
OBJECTIVE = AMLObjective(
    prediction_weight=TERM_WEIGHTS[0], inverse_weight=TERM_WEIGHTS[1], size_weight=TERM_WEIGHTS[2]
)


def tune_mask(
    problem: MaskingProblem, objective: Objective, start: Tensor, **options: Any
) -> TuningResult:
    return descend(problem, objective, MaskLogits(start), **options)


def examples(seed: int, n: int) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """Inputs, baselines (one element of which equals the input), logits to start from, targets."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=g, dtype=DOUBLE) * 2
    b = torch.randn(n, 4, generator=g, dtype=DOUBLE) * 0.3
    b[0, 1] = x[0, 1]
    start = torch.randn(n, 4, generator=g, dtype=DOUBLE)
    targets = torch.randint(0, 2, (n,), generator=g).tolist()
    return x, b, start, targets


def tune_by_hand(
    x: Tensor, b: Tensor, start: Tensor, target: int, n_steps: int, learning_rate: float
) -> tuple[list[float], tuple[float, ...], int]:
    loss = functools.partial(
        references.aml_loss,
        x=x.tolist(),
        b=b.tolist(),
        weights=WEIGHTS,
        bias=BIAS,
        target_class=target,
        maskable=(x != b).tolist(),
        term_weights=TERM_WEIGHTS,
        eps=1e-6,
    )
    return references.tune_one(start.tolist(), loss, n_steps=n_steps, learning_rate=learning_rate)


@settings(max_examples=8)
@given(st.integers(0, 1000), st.sampled_from([0.02, 0.3, 2.0]))
def test_tuning_is_adam_on_each_example_by_itself(seed: int, learning_rate: float) -> None:
    x, b, start, targets = examples(seed, 3)
    problem = problem_for(
        LinearLogits(WEIGHTS, BIAS), x, baselines=b, target=targets, output="logits"
    )
    result = tune_mask(problem, OBJECTIVE, start, n_steps=12, learning_rate=learning_rate)
    for i in range(3):
        mask, terms, step = tune_by_hand(x[i], b[i], start[i], targets[i], 12, learning_rate)
        # float64; Adam's first steps divide gradients by their own size, which magnifies rounding.
        assert result.mask[i].tolist() == pytest.approx(mask, rel=1e-7, abs=1e-9)
        assert result.terms.total[i].item() == pytest.approx(terms[0], rel=1e-9)
        assert result.terms.parts["prediction"][i].item() == pytest.approx(terms[1], rel=1e-6)
        assert result.terms.parts["inverse"][i].item() == pytest.approx(terms[2], rel=1e-6)
        assert result.terms.parts["size"][i].item() == pytest.approx(terms[3], rel=1e-6)
        assert result.best_step[i].item() == step


def problem_of(seed: int, n: int) -> tuple[MaskingProblem, Tensor]:
    x, b, start, targets = examples(seed, n)
    return problem_for(
        LinearLogits(WEIGHTS, BIAS), x, baselines=b, target=targets, output="logits"
    ), start


@pytest.mark.parametrize("learning_rate", [0.05, 5.0])
def test_the_best_step_is_the_least_loss_of_that_very_mask(learning_rate: float) -> None:
    """A rate of 5 overshoots, so that the last mask is not the best."""
    problem, start = problem_of(2, 4)
    seen: list[tuple[Tensor, Tensor]] = []

    class Spying:
        uses_kept = True
        uses_complement = True

        def __call__(self, outcome: MaskedOutcome) -> Terms:
            terms = OBJECTIVE(outcome)
            seen.append((outcome.mask.detach().clone(), terms.total.detach().clone()))
            return terms

    result = tune_mask(problem, Spying(), start, n_steps=9, learning_rate=learning_rate)
    assert len(seen) == 10  # nine steps and one more pass for the last mask
    assert torch.equal(seen[0][0], torch.sigmoid(start))
    losses = torch.stack([total for _, total in seen])
    for i in range(4):
        best = min(range(10), key=lambda step, i=i: losses[step, i].item())
        assert result.best_step[i].item() == best
        assert torch.equal(result.mask[i], seen[best][0][i])
        assert result.terms.total[i] == losses[best, i]
    # What is returned scores what it says.
    again = problem.evaluate(result.mask, OBJECTIVE, where="again")
    torch.testing.assert_close(again.total, result.terms.total, rtol=1e-13, atol=0)
    if learning_rate == 5.0:
        assert result.best_step.min() < 9


def test_a_start_that_cannot_be_bettered_is_kept() -> None:
    problem, start = problem_of(3, 2)
    found = tune_mask(problem, OBJECTIVE, start, n_steps=300, learning_rate=0.3)
    logits = torch.logit(found.mask)
    # One huge step leads away from the optimum.
    again = tune_mask(problem, OBJECTIVE, logits, n_steps=1, learning_rate=50.0)
    assert again.best_step.tolist() == [0, 0]
    torch.testing.assert_close(again.mask, found.mask, rtol=0, atol=1e-12)


def test_a_batch_is_its_examples_one_by_one() -> None:
    x, b, start, targets = examples(5, 4)
    model = LinearLogits(WEIGHTS, BIAS)

    def run(rows: slice) -> TuningResult:
        problem = problem_for(
            model, x[rows], baselines=b[rows], target=targets[rows], output="logits"
        )
        return tune_mask(problem, OBJECTIVE, start[rows], n_steps=20, learning_rate=0.3)

    together = run(slice(None))
    for i in range(4):
        alone = run(slice(i, i + 1))
        torch.testing.assert_close(alone.mask[0], together.mask[i], rtol=0, atol=1e-10)
        torch.testing.assert_close(
            alone.terms.total[0], together.terms.total[i], rtol=1e-10, atol=0
        )
        assert alone.best_step[0] == together.best_step[i]


def test_the_deciding_token_is_found() -> None:
    model = PlantedClassifier()
    ids, places = planted_texts(16, 7, seed=4)
    problem = problem_for(model, ids)
    result = tune_mask(problem, AMLObjective(), torch.zeros(16, 7), n_steps=40, learning_rate=0.1)
    assert torch.equal(result.mask.argmax(dim=1), places)
    others = result.mask.scatter(1, places.unsqueeze(1), 0.0)
    assert result.mask.gather(1, places.unsqueeze(1)).min() > 0.6
    assert others.max() < 0.3


def test_the_start_and_the_model_stay_as_they_are() -> None:
    problem, start = problem_of(6, 2)
    model = problem.site.forward_func
    assert isinstance(model, LinearLogits)
    model.weights.grad = torch.full_like(model.weights, 7.0)
    before = start.clone()
    with torch.no_grad():
        tune_mask(problem, OBJECTIVE, start, n_steps=3, learning_rate=0.5)
    assert torch.equal(start, before)
    assert start.grad is None
    assert model.weights.grad.tolist() == [7.0] * 4
    assert model.bias.grad is None
    assert model.weights.requires_grad


def test_the_result_has_no_graph() -> None:
    problem, start = problem_of(7, 2)
    result = tune_mask(problem, OBJECTIVE, start, n_steps=2, learning_rate=0.5)
    tensors = [result.mask, result.terms.total, *result.terms.parts.values()]
    assert not any(t.requires_grad for t in tensors)


def test_the_progress_bar_is_shown_only_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    problem, start = problem_of(8, 1)
    tune_mask(problem, OBJECTIVE, start, n_steps=2, learning_rate=0.5)
    assert capsys.readouterr() == ("", "")
    tune_mask(problem, OBJECTIVE, start, n_steps=2, learning_rate=0.5, show_progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Tuning" in captured.err


# Bad input


def test_a_forward_function_without_a_gradient_is_named() -> None:
    model = LinearLogits(WEIGHTS, BIAS)
    x, b, start, _ = examples(9, 2)
    problem = problem_for(lambda t: model(t.detach()), x, baselines=b)
    with pytest.raises(NoGradientError, match=r"forward_func: .* no gradient"):
        tune_mask(problem, OBJECTIVE, start, n_steps=2, learning_rate=0.1)


def test_a_gradient_that_reaches_parameters_only_is_none() -> None:
    """With an objective that has no term of the mask itself, nothing links loss and mask."""

    class KeptOnly:
        uses_kept = True
        uses_complement = False

        def __call__(self, outcome: MaskedOutcome) -> Terms:
            assert outcome.kept is not None
            return Terms(-outcome.kept[:, 0], {})

    model = LinearLogits(WEIGHTS, BIAS)  # its parameters require a gradient
    x, b, start, _ = examples(9, 2)
    problem = problem_for(lambda t: model(t.detach()), x, baselines=b)
    with pytest.raises(NoGradientError, match=r"forward_func: .* no gradient"):
        tune_mask(problem, KeptOnly(), start, n_steps=2, learning_rate=0.1)


def test_an_output_that_stops_being_finite_names_the_step() -> None:
    calls: list[int] = []

    def forward(x: Tensor) -> Tensor:
        calls.append(1)
        z = x.sum(dim=1)
        # The first call is the unmasked one, the second step 0: step 2 is the fourth.
        z = z * math.nan if len(calls) == 4 else z
        return torch.stack([z, -z], dim=1)

    x, b, start, _ = examples(9, 2)
    problem = problem_for(forward, x, baselines=b)
    with pytest.raises(NonFiniteError, match=r"forward_func: .* for tuning step 2 \(rows"):
        tune_mask(problem, OBJECTIVE, start, n_steps=5, learning_rate=0.1)


def test_a_loss_that_is_not_finite_names_the_step_and_the_examples() -> None:
    class Broken:
        uses_kept = True
        uses_complement = False

        def __call__(self, outcome: MaskedOutcome) -> Terms:
            total = outcome.mask.sum(dim=1)
            return Terms(torch.where(torch.tensor([False, True]), math.inf, total), {})

    problem, start = problem_of(9, 2)
    with pytest.raises(NonFiniteError, match=r"objective: .* at tuning step 0 for examples \[1\]"):
        tune_mask(problem, Broken(), start, n_steps=2, learning_rate=0.1)


@pytest.mark.parametrize("learning_rate", [0.0, -1.0, math.nan, math.inf, "0.1", None])
def test_learning_rates_are_checked(learning_rate: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"^learning_rate: expected a number above 0, got"):
        check_learning_rate(learning_rate)
