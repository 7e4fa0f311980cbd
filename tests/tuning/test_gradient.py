"""The averaged mask gradient, against a plain loop and functions whose answer can be derived."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_aml.exceptions import NoGradientError, NonFiniteError
from captum_aml.masking.problem import MaskingProblem
from captum_aml.objectives import AMLObjective, LAObjective, LogOddsObjective
from captum_aml.perturbation import Blend, ForwardState
from captum_aml.tuning import UnitEffects, mask_gradient
from tests._helpers.models import PlantedClassifier, planted_texts, problem_for

DOUBLE = torch.float64
AML, LA = AMLObjective(), LAObjective()


def effects_of(
    problem: MaskingProblem,
    *,
    n_masks: int = 16,
    objective: LogOddsObjective = AML,
    seed: int = 0,
) -> UnitEffects:
    return mask_gradient(problem, objective, n_masks=n_masks, seed=seed, dtype=DOUBLE)


@dataclass(frozen=True)
class Recording:
    """Blending that remembers the shares of the first masked tensor, call by call."""

    name: str = "recording"
    keeps: list[Tensor] = field(default_factory=list)

    def __call__(self, state: ForwardState, keep: tuple[Tensor, ...]) -> ForwardState:
        self.keeps.append(keep[0].detach())
        return Blend()(state, keep)


def masks_of(problem: MaskingProblem, **options: Any) -> Tensor:
    """The masks that are used, (K, N, U), as a perturbation is handed them."""
    recording = Recording()
    effects_of(replace(problem, perturbation=recording), **options)
    n = problem.call.n_examples
    return torch.cat([keep.reshape(-1, n, *keep.shape[1:]) for keep in recording.keeps])


def net(seed: int = 3) -> nn.Module:
    """Three classes of four inputs, far from linear, in double precision."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    for parameter in model.parameters():
        parameter.data.mul_(2)
    return model


def drawn(n: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Inputs and baselines (n, 4), of which some elements are alike."""
    generator = torch.Generator().manual_seed(seed)
    x, b = (torch.randn(n, 4, generator=generator, dtype=DOUBLE) for _ in range(2))
    b[0, 1] = x[0, 1]
    if n > 2:
        b[2, :3] = x[2, :3]
    return x, b


# --- Against a plain loop -------------------------------------------------------------------------


def by_loop(
    forward: Callable[[Tensor], Tensor],
    x: Tensor,
    b: Tensor,
    target: int,
    masks: Tensor,
    weights: tuple[float, float],
) -> list[float]:
    """The equation for one example, x and b (U,), under masks (K, U): one pass for each."""
    total = torch.zeros_like(x)
    for mask in masks:
        given = mask.clone().requires_grad_()
        p = forward((given * x + (1 - given) * b).unsqueeze(0))[0].softmax(0)
        rest = sum(p[k] for k in range(len(p)) if k != target)
        u = weights[0] * p[target].log() - weights[1] * rest.log()
        total += torch.autograd.grad(u, given)[0]
    mean: list[float] = (total / len(masks)).masked_fill(x == b, 0.0).tolist()
    return mean


@pytest.mark.parametrize("n_masks", [2, 4, 16, 30])
@pytest.mark.parametrize(
    ("objective", "weights"),
    [
        (AML, (1, 1)),
        (LA, (0, 1)),
        (AMLObjective(prediction_weight=0.3, inverse_weight=2), (0.3, 2)),
    ],
    ids=["aml", "la", "weighted"],
)
def test_it_is_the_plain_loop(
    n_masks: int, objective: LogOddsObjective, weights: tuple[float, float]
) -> None:
    model = net()
    x, b = drawn(2)
    targets = [2, 0]
    problem = problem_for(model, x, baselines=b, target=targets)
    masks = masks_of(problem, n_masks=n_masks)
    assert masks.shape == (n_masks, 2, 4)
    got = effects_of(problem, n_masks=n_masks, objective=objective).effects
    for i in range(2):
        expected = by_loop(model, x[i], b[i], targets[i], masks[:, i], weights)
        assert got[i].tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_loop_may_go_in_several_calls() -> None:
    x, b = drawn(3)
    problem = problem_for(net(), x, baselines=b, target=1)
    whole = effects_of(problem)
    for max_rows in (1, 3, 7, 11, 100):
        parts = effects_of(replace(problem, max_rows=max_rows))
        torch.testing.assert_close(parts.effects, whole.effects, rtol=1e-11, atol=1e-13)
        torch.testing.assert_close(parts.slope, whole.slope, rtol=1e-11, atol=1e-13)


# --- Functions whose answer can be derived --------------------------------------------------------

WEIGHTS = torch.tensor([2.0, -1.0, 0.0, 0.5], dtype=DOUBLE)


@pytest.mark.parametrize("n_masks", [2, 4, 16])
@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("objective", [AML, LA], ids=["aml", "la"])
def test_of_a_linear_function_each_unit_has_what_it_adds(
    n_masks: int, seed: int, objective: LogOddsObjective
) -> None:
    x, b = drawn(3)
    problem = problem_for(lambda t: t @ WEIGHTS + 3.0, x, baselines=b)
    found = effects_of(problem, n_masks=n_masks, seed=seed, objective=objective)
    torch.testing.assert_close(found.effects, WEIGHTS * (x - b), rtol=1e-13, atol=1e-14)
    # The function's own value is what is differentiated.
    assert found.slope.tolist() == pytest.approx([1.0] * 3, rel=1e-12)
    assert bool((found.effects[x == b] == 0).all())
    assert bool((found.effects[:, 2] == 0).all())


def test_of_linear_log_odds_too() -> None:
    # Logits of two classes, of which one is linear: the odds of that class are it.
    def forward(t: Tensor) -> Tensor:
        z = t @ WEIGHTS - 0.25
        return torch.stack([torch.zeros_like(z), z], dim=1)

    x, b = drawn(3)
    for target, sign in ((1, 1.0), (0, -1.0)):
        found = effects_of(problem_for(forward, x, baselines=b, target=target))
        torch.testing.assert_close(found.effects, sign * WEIGHTS * (x - b), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("n_masks", [2, 4, 16])
def test_of_a_quadratic_form_effects_are_the_shapley_values(n_masks: int) -> None:
    # F = x A x with a symmetric A: the gradient is linear in the mask, so that its mean over a pair
    # is that at the pair's middle, where every unit is kept by half: x_i (A x)_i. That is the
    # Shapley value too: each product is shared by its two elements.
    generator = torch.Generator().manual_seed(0)
    square = torch.randn(4, 4, generator=generator, dtype=DOUBLE)
    symmetric = square + square.T
    x = torch.randn(3, 4, generator=generator, dtype=DOUBLE)
    problem = problem_for(lambda t: ((t @ symmetric) * t).sum(dim=1), x, baselines=0.0)
    got = effects_of(problem, n_masks=n_masks).effects
    # Masks are drawn in single precision: a pair's middle is off by a rounding error.
    torch.testing.assert_close(got, x * (x @ symmetric), rtol=0, atol=1e-6)


def test_classes_that_move_together_have_no_odds_and_are_explained_by_the_value() -> None:
    def forward(t: Tensor) -> Tensor:
        z = t @ WEIGHTS
        return torch.stack([z, z + 1], dim=1)

    x, b = drawn(3)
    found = effects_of(problem_for(forward, x, baselines=b, target=1))
    torch.testing.assert_close(found.effects, WEIGHTS * (x - b), rtol=1e-9, atol=1e-12)
    assert found.slope.tolist() == pytest.approx([1.0] * 3, rel=1e-9)


def test_two_units_of_a_product_have_the_same() -> None:
    x = torch.tensor([[2.0, 3.0, 1.0]], dtype=DOUBLE)
    (found,) = effects_of(problem_for(lambda t: t[:, 0] * t[:, 1], x)).effects.tolist()
    # F = 6 m m': half of it is each one's.
    assert found[:2] == pytest.approx([3.0, 3.0], rel=1e-6)
    assert found[2] == 0.0


def test_the_deciding_token_has_the_largest_effect() -> None:
    ids, places = planted_texts(16, 7, seed=4)
    effects = effects_of(problem_for(PlantedClassifier(), ids)).effects
    assert torch.equal(effects.argmax(dim=1), places)
    # The others have no evidence at all.
    others = effects.scatter(1, places.unsqueeze(1), 0.0)
    assert bool((others == 0).all())


# --- The slope ------------------------------------------------------------------------------------


def test_the_slope_takes_effects_to_the_forward_functions_unit() -> None:
    # A logit that is twice the log-odds, up to a constant; the odds are linear.
    def forward(t: Tensor) -> Tensor:
        z = t @ WEIGHTS
        return torch.stack([z + 1, 2 * z], dim=1)

    x, b = drawn(3)
    found = effects_of(problem_for(forward, x, baselines=b, target=1))
    assert found.slope.tolist() == pytest.approx([2.0] * 3, rel=1e-9)
    torch.testing.assert_close(
        found.slope[:, None] * found.effects, 2 * WEIGHTS * (x - b), rtol=1e-9, atol=1e-12
    )
    # Weights of the objective change the unit of u, and the slope makes up for it.
    twice = effects_of(
        problem_for(forward, x, baselines=b, target=1),
        objective=AMLObjective(prediction_weight=2.0, inverse_weight=2.0),
    )
    torch.testing.assert_close(twice.effects, 2 * found.effects, rtol=1e-12, atol=0)
    torch.testing.assert_close(twice.slope, found.slope / 2, rtol=1e-12, atol=0)


def test_the_slope_is_0_where_nothing_changes() -> None:
    # A logit that is always 0, and an example with nothing to mask.
    def forward(t: Tensor) -> Tensor:
        z = t @ WEIGHTS
        return torch.stack([torch.zeros_like(z), z], dim=1)

    x, b = drawn(3)
    b[1] = x[1]
    assert effects_of(problem_for(forward, x, baselines=b, target=0)).slope.tolist() == [0.0] * 3
    found = effects_of(problem_for(forward, x, baselines=b, target=1))
    assert found.slope[1].item() == 0.0
    assert bool((found.effects[1] == 0).all())


def test_a_probabilitys_slope_is_between_its_steepest_and_flattest() -> None:
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(2), dtype=DOUBLE)
    problem = problem_for(lambda t: (t @ WEIGHTS).sigmoid(), x, output="probability")
    slope = effects_of(problem).slope
    # The slope of a sigmoid in its logit is p (1 - p), at most 1/4.
    assert bool(((slope > 0) & (slope < 0.25)).all())


# --- The masks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_masks", [2, 4, 6, 16])
@pytest.mark.parametrize("n_units", [1, 2, 3, 9])
def test_masks_come_in_pairs_that_treat_all_units_alike(n_masks: int, n_units: int) -> None:
    x = torch.rand(2, n_units, dtype=DOUBLE) + 1
    masks = masks_of(problem_for(lambda t: t.sum(dim=1).tanh(), x), n_masks=n_masks)
    assert masks.shape == (n_masks, 2, n_units)
    # At 0 a unit would have no gradient of its own through some removals.
    assert bool(((masks > 0) & (masks <= 1)).all())
    pairs = masks[: n_masks // 2] + masks[n_masks // 2 :]
    for pair in pairs:
        assert pair.flatten().tolist() == pytest.approx([pair.flatten()[0].item()] * 2 * n_units)
    # Each unit is kept as much as every other.
    mean = masks.mean(dim=0)
    assert mean.flatten().tolist() == pytest.approx([mean.flatten()[0].item()] * 2 * n_units)
    # Each unit is kept in every share: at the middles of K equal parts of [0, 1].
    shares = [(k + 0.5) / n_masks for k in range(n_masks)]
    for unit in range(n_units):
        assert sorted(masks[:, 0, unit].tolist()) == pytest.approx(shares)


def test_what_is_not_maskable_is_kept() -> None:
    x, b = drawn(3)
    masks = masks_of(problem_for(net(), x, baselines=b, target=0))
    assert bool((masks[:, x == b] == 1).all())
    assert bool((masks[:, x != b] < 1).any())


def test_masks_follow_from_the_seed_and_the_number_of_maskable_units() -> None:
    x, b = drawn(3)
    problem = problem_for(net(), x, baselines=b, target=0)
    masks = masks_of(problem)
    torch.manual_seed(99)
    assert torch.equal(masks_of(problem), masks)
    assert not torch.equal(masks_of(problem, seed=1), masks)
    # The first example has three maskable units among four, here the only ones.
    alone = x[0] != b[0]
    model = net()

    def forward(t: Tensor) -> Tensor:
        full = x[0].repeat(len(t), 1)
        full[:, alone] = t
        return model(full)

    own = problem_for(forward, x[:1, alone], baselines=b[:1, alone], target=0)
    assert torch.equal(masks_of(own)[:, 0], masks[:, 0, alone])
    (effects,) = effects_of(own).effects
    torch.testing.assert_close(effects, effects_of(problem).effects[0, alone])


def test_an_example_does_not_depend_on_its_batch() -> None:
    x, b = drawn(5)
    model = net()
    together = effects_of(problem_for(model, x, baselines=b, target=[0, 1, 2, 1, 0]))
    for i, target in enumerate([0, 1, 2, 1, 0]):
        rows = slice(i, i + 1)
        alone = effects_of(problem_for(model, x[rows], baselines=b[rows], target=target))
        torch.testing.assert_close(alone.effects[0], together.effects[i], rtol=1e-11, atol=1e-13)
        torch.testing.assert_close(alone.slope[0], together.slope[i], rtol=1e-11, atol=1e-13)


# --- Forward functions that draw random numbers ---------------------------------------------------


class Noisy(nn.Module):
    """Logits (0, sum of w * noise * x); the noise is drawn anew in each pass, and remembered."""

    def __init__(self) -> None:
        super().__init__()
        self.noise: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.noise.append(torch.rand(x.shape, dtype=DOUBLE))
        z = (WEIGHTS * self.noise[-1] * x).sum(dim=1)
        return torch.stack([torch.zeros_like(z), z], dim=1)


@pytest.mark.parametrize("max_rows", [None, 3, 6])
def test_a_mask_and_its_complement_meet_the_same_noise(max_rows: int | None) -> None:
    model = Noisy()
    x, b = drawn(3)
    problem = problem_for(model, x, baselines=b, target=1)
    assert problem.draws
    before = torch.get_rng_state()
    model.noise.clear()
    found = effects_of(replace(problem, max_rows=max_rows), n_masks=8)
    assert torch.equal(torch.get_rng_state(), before)
    half = len(model.noise) // 2
    assert half == {None: 1, 3: 4, 6: 2}[max_rows]
    masks, complements = torch.cat(model.noise[:half]), torch.cat(model.noise[half:])
    assert torch.equal(masks, complements)
    assert not torch.equal(masks[:3], masks[3:6])
    # The same seed draws the same.
    again = effects_of(replace(problem, max_rows=max_rows), n_masks=8)
    assert torch.equal(again.effects, found.effects)
    # Linear under each noise: the mean over the passes is in what they all have.
    assert bool((found.effects.sign() == (WEIGHTS * (x - b)).sign()).all())


def test_without_noise_all_masks_are_one_call() -> None:
    rows: list[int] = []
    model = net()

    def forward(t: Tensor) -> Tensor:
        rows.append(len(t))
        return model(t)

    x, b = drawn(3)
    problem = problem_for(forward, x, baselines=b, target=1)
    assert not problem.draws
    rows.clear()
    effects_of(problem, n_masks=8)
    assert rows == [24]


# --- What is left alone, and what is refused ------------------------------------------------------


def test_the_model_and_the_inputs_stay_as_they_are() -> None:
    model = net()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    x, b = drawn(2)
    x.requires_grad_()
    with torch.no_grad():
        found = effects_of(problem_for(model, x, baselines=b, target=1))
        assert not torch.is_grad_enabled()
    assert x.grad is None
    assert all(bool((p.grad == 7).all()) for p in model.parameters() if p.grad is not None)
    assert not found.effects.requires_grad
    assert not found.slope.requires_grad


def test_a_forward_function_without_a_gradient_is_named() -> None:
    x, b = drawn(2)
    trainable = nn.Linear(4, 3).double()
    for forward in (lambda t: net()(t.detach()), lambda t: trainable(t.detach())):
        problem = problem_for(forward, x, baselines=b, target=1)
        with pytest.raises(NoGradientError, match=r"^forward_func: .* no gradient"):
            effects_of(problem)


def test_a_gradient_that_is_not_finite_is_named() -> None:
    # The slope of a root at 0 is infinite, and infinity minus infinity is not a number.
    x, b = drawn(2)
    problem = problem_for(lambda t: (t - t).sqrt().sum(dim=1) + t.sum(dim=1), x, baselines=b)
    with pytest.raises(NonFiniteError, match=r"^forward_func: expected finite gradients.*masked"):
        effects_of(problem)


def test_a_value_that_is_not_finite_is_named() -> None:
    x, b = drawn(2)
    n_calls: list[int] = []

    def forward(t: Tensor) -> Tensor:
        n_calls.append(1)
        # Finite for the inputs themselves.
        return net()(t) * (1.0 if len(n_calls) == 1 else math.nan)

    problem = problem_for(forward, x, baselines=b, target=1)
    with pytest.raises(NonFiniteError, match=r"^forward_func: .*the masked inputs"):
        effects_of(problem)
