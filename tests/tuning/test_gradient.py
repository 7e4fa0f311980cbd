"""The averaged mask gradient and the regression that refines it.

Against a plain loop, a dense Bayesian regression, and functions whose answer can be derived.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Tensor, nn

from captum_aml.exceptions import NoGradientError, NonFiniteError
from captum_aml.masking.problem import MaskingProblem
from captum_aml.objectives import AMLObjective, LAObjective, LogOddsObjective
from captum_aml.perturbation import Blend, ForwardState
from captum_aml.tuning import UnitEffects, mask_gradient
from captum_aml.tuning.gradient import SHARED
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
    (effects,) = mask_gradient([problem], objective, n_masks=n_masks, seed=seed, dtype=DOUBLE)
    return effects


@dataclass(frozen=True)
class Recording:
    """Blending that remembers the shares of the first masked tensor, call by call."""

    name: str = "recording"
    with_gradient: list[Tensor] = field(default_factory=list)
    without: list[Tensor] = field(default_factory=list)

    def __call__(self, state: ForwardState, keep: tuple[Tensor, ...]) -> ForwardState:
        (self.with_gradient if keep[0].requires_grad else self.without).append(keep[0].detach())
        return Blend()(state, keep)


def kept_by(problem: MaskingProblem, **options: Any) -> tuple[Tensor, Tensor]:
    """The masks (K, N, U) and the subsets (K + 2, N, U), as a perturbation is handed them."""
    recording = Recording()
    effects_of(replace(problem, perturbation=recording), **options)
    n = problem.call.n_examples
    masks, subsets = (
        torch.cat([keep.reshape(-1, n, *keep.shape[1:]) for keep in keeps])
        for keeps in (recording.with_gradient, recording.without)
    )
    return masks, subsets


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


# --- Against a plain loop and a dense regression --------------------------------------------------

Array = npt.NDArray[np.float64]


def gradients_by_loop(
    forward: Callable[[Tensor], Tensor],
    x: Tensor,
    b: Tensor,
    target: int | None,
    masks: Tensor,
    weights: tuple[float, float],
) -> Array:
    """Gradients (K, U) for one example, x and b (U,), under masks (K, U): one pass for each."""
    gradients = []
    for mask in masks:
        given = mask.clone().requires_grad_()
        output = forward((given * x + (1 - given) * b).unsqueeze(0))[0]
        u = output
        if target is not None:
            p = output.softmax(0)
            rest = sum(p[k] for k in range(len(p)) if k != target)
            u = weights[0] * p[target].log() - weights[1] * rest.log()
        gradient = torch.autograd.grad(u, given)[0]
        gradients.append(gradient.masked_fill(x == b, 0.0).numpy())
    return np.stack(gradients)


def regressed(gradients: Array, subsets: Array, v: Array) -> Array:
    """The posterior mean of the effects (U,) from values v (J,) of subsets (J, U).

    The constant has no prior. Every noise is tried: the evidence is the density of the values, with
    the constant at its best, and the posterior solves the normal equations of all coefficients.
    """
    phi, variance = gradients.mean(0), 0.25 * gradients.var(0)
    (scale, _) = np.polyfit(subsets @ phi, v, 1)
    mean = phi
    if scale <= 0:
        scale = np.std(v) / np.std(subsets @ phi)
        mean, variance = 0 * phi, variance + 0.25 * phi**2
    prior = scale * mean
    centred = subsets - subsets.mean(0)
    covariance = centred @ np.diag(scale**2 * variance) @ centred.T
    rest = v - v.mean() - centred @ prior
    size = np.mean(rest**2) + 1e-9 * np.diag(covariance).mean()
    found: list[tuple[float, Array]] = []
    for multiple in (0.01, 0.03, 0.1, 0.3, 1.0, 3.0):
        noise = multiple * size
        total = covariance + noise * np.eye(len(v))
        ones = np.ones(len(v))
        weights = np.linalg.solve(total, ones)
        constant = weights @ (v - centred @ prior) / weights.sum()
        evidence = multivariate_normal(constant + centred @ prior, total).logpdf(v)
        free = np.flatnonzero(variance)
        design = np.column_stack([ones, subsets[:, free]])
        precision = np.diag([0.0, *(1 / (scale**2 * variance[free]))])
        known = design.T @ v / noise + precision @ np.array([0.0, *prior[free]])
        solution = np.linalg.solve(design.T @ design / noise + precision, known)
        effects = mean.copy()
        effects[free] = solution[1:] / scale
        found.append((float(evidence), effects))
    evidence, effects = max(found, key=lambda each: each[0])
    by_noise = multivariate_normal(np.full(len(v), v.mean()), size).logpdf(v)
    is_noise = evidence <= by_noise + 3  # half of 6, since it is no double logarithm
    return phi if mean is not phi and is_noise else effects


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
def test_it_is_the_plain_loop_and_a_dense_regression(
    n_masks: int, objective: LogOddsObjective, weights: tuple[float, float]
) -> None:
    model = net()
    x, b = drawn(2)
    targets = [2, 0]
    problem = problem_for(model, x, baselines=b, target=targets)
    masks, subsets = kept_by(problem, n_masks=n_masks)
    assert masks.shape == (n_masks, 2, 4)
    assert subsets.shape == (n_masks + 2, 2, 4)
    found = effects_of(problem, n_masks=n_masks, objective=objective)
    for i, target in enumerate(targets):
        gradients = gradients_by_loop(model, x[i], b[i], target, masks[:, i], weights)
        kept = subsets[:, i]
        output = model(kept * x[i] + (1 - kept) * b[i]).detach()
        p = output.softmax(1)[:, target].numpy()
        expected = regressed(gradients, kept.numpy(), p)
        assert found.effects[i].tolist() == pytest.approx(expected.tolist(), rel=1e-6, abs=1e-9)
        # The effects are of the log-odds, and the slope takes them to the logit.
        kept = masks[:, i]
        output = model(kept * x[i] + (1 - kept) * b[i]).detach()
        p = output.softmax(1)[:, target]
        u = weights[0] * p.log() - weights[1] * (1 - p).log()
        slope, _ = np.polyfit(u.numpy(), output[:, target].numpy(), 1)
        assert found.slope[i].item() == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_values_are_regressed_as_they_are(seed: int) -> None:
    # Few units and many, more than there are subsets.
    n_units = (2, 5, 12, 30)[seed % 4]
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(n_units, 6, generator=generator, dtype=DOUBLE)
    x, b = torch.randn(2, 1, n_units, generator=generator, dtype=DOUBLE)

    def forward(t: Tensor) -> Tensor:
        return (t @ first).tanh().sum(dim=1)

    problem = problem_for(forward, x, baselines=b)
    masks, subsets = kept_by(problem, n_masks=10)
    gradients = gradients_by_loop(forward, x[0], b[0], None, masks[:, 0], (1, 1))
    values = forward(subsets[:, 0] * x + (1 - subsets[:, 0]) * b).numpy()
    found = effects_of(problem, n_masks=10)
    expected = regressed(gradients, subsets[:, 0].numpy(), values)
    assert found.effects[0].tolist() == pytest.approx(expected.tolist(), rel=1e-6, abs=1e-9)
    assert found.slope.tolist() == pytest.approx([1.0])


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


def test_of_a_class_with_linear_log_odds_each_unit_has_what_it_adds_to_them() -> None:
    # Logits of two classes, of which one is linear.
    def forward(t: Tensor) -> Tensor:
        z = t @ WEIGHTS - 0.25
        return torch.stack([torch.zeros_like(z), z], dim=1)

    x, b = drawn(3)
    one, other = (effects_of(problem_for(forward, x, baselines=b, target=k)) for k in (1, 0))
    torch.testing.assert_close(one.effects, -other.effects, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(one.effects, WEIGHTS * (x - b), rtol=1e-9, atol=1e-12)


def test_odds_too_small_for_a_probability_are_regressed_as_larger_ones() -> None:
    # Of small probabilities odds and probabilities are proportional, however small they are.
    x, b = torch.ones(1, 3, dtype=DOUBLE), torch.zeros(1, 3, dtype=DOUBLE)

    def effects(bias: float) -> Tensor:
        def forward(t: Tensor) -> Tensor:
            z = 3 * t[:, 0] * t[:, 1] + t[:, 2].square() - bias
            return torch.stack([torch.zeros_like(z), z], dim=1)

        problem = problem_for(forward, x, baselines=b, target=1, output="logits")
        return effects_of(problem).effects

    torch.testing.assert_close(effects(900.0), effects(40.0), rtol=1e-9, atol=1e-12)


def test_without_any_probability_la_explains_the_value() -> None:
    x, b = torch.ones(1, 4, dtype=DOUBLE), torch.zeros(1, 4, dtype=DOUBLE)

    def forward(t: Tensor) -> Tensor:
        z = t @ WEIGHTS - 900
        return torch.stack([torch.zeros_like(z), z], dim=1)

    problem = problem_for(forward, x, baselines=b, target=1, output="logits")
    found = effects_of(problem, objective=LA).effects
    torch.testing.assert_close(found, WEIGHTS * x, rtol=1e-9, atol=1e-12)


def test_values_that_fall_where_gradients_rise_decide_which_way() -> None:
    # Rounding has no gradient: its jumps are in the values alone, and turn them. Of two units with
    # jumps the higher one has the larger effect, and none has the one without a gradient.
    heights = torch.tensor([5.0, 9.0, 0.0], dtype=DOUBLE)

    def forward(t: Tensor) -> Tensor:
        return t[:, :2].sum(dim=1) - t.round() @ heights

    x = torch.ones(1, 3, dtype=DOUBLE)
    (found,) = effects_of(problem_for(forward, x)).effects.tolist()
    assert found[1] < found[0] < 0
    assert found[1] / found[0] == pytest.approx((9 - 1) / (5 - 1), rel=0.15)
    assert found[2] == 0
    # A gradient that is the same everywhere is known, whatever the height of the values.
    steeper = effects_of(problem_for(lambda t: (t + 5 * t.round()).sum(dim=1), x))
    torch.testing.assert_close(steeper.effects, x, rtol=1e-13, atol=1e-14)


def test_a_unit_without_a_gradient_keeps_0() -> None:
    # The middle input jumps at one half, and the last is not looked at.
    def forward(t: Tensor) -> Tensor:
        z = t[:, 0] + t[:, 0] * t[:, 1] + t[:, 2].round()
        return torch.stack([torch.zeros_like(z), z], dim=1)

    x = torch.ones(2, 4, dtype=DOUBLE)
    effects = effects_of(problem_for(forward, x, target=1)).effects
    assert bool((effects[:, 2:] == 0).all())
    assert bool((effects[:, 0] > effects[:, 1]).all())
    assert bool((effects[:, 1] > 0).all())


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


def test_weights_of_the_objective_change_the_unit_of_effects_and_the_slope_undoes_it() -> None:
    x, b = drawn(3)
    problem = problem_for(net(), x, baselines=b, target=1)
    once = effects_of(problem)
    twice = effects_of(problem, objective=AMLObjective(prediction_weight=2.0, inverse_weight=2.0))
    torch.testing.assert_close(twice.effects, 2 * once.effects, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(2 * twice.slope, once.slope, rtol=1e-9, atol=0)


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


def test_the_slope_takes_log_odds_to_a_probability() -> None:
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(2), dtype=DOUBLE)
    problem = problem_for(lambda t: (t @ WEIGHTS).sigmoid(), x, output="probability")
    masks, _ = kept_by(problem)
    odds = (masks * x) @ WEIGHTS
    found = effects_of(problem)
    for i in range(5):
        slope, _ = np.polyfit(odds[:, i].numpy(), odds[:, i].sigmoid().numpy(), 1)
        assert found.slope[i].item() == pytest.approx(slope, rel=1e-9)


# --- The masks and the subsets --------------------------------------------------------------------


@pytest.mark.parametrize("n_masks", [2, 4, 6, 16])
@pytest.mark.parametrize("n_units", [1, 2, 3, 9])
def test_masks_come_in_pairs_that_treat_all_units_alike(n_masks: int, n_units: int) -> None:
    x = torch.rand(2, n_units, dtype=DOUBLE) + 1
    masks, _ = kept_by(problem_for(lambda t: t.sum(dim=1).tanh(), x), n_masks=n_masks)
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


@pytest.mark.parametrize(("n_masks", "n_seeds"), [(16, 150), (400, 20)])
def test_mask_values_of_two_units_have_a_part_in_common(n_masks: int, n_seeds: int) -> None:
    x = torch.ones(1, 12, dtype=DOUBLE)
    problem = problem_for(lambda t: t.sum(dim=1), x)
    correlations = []
    for seed in range(n_seeds):
        masks, _ = kept_by(problem, n_masks=n_masks, seed=seed)
        correlations.append(np.corrcoef(masks[:, 0].T.numpy())[np.triu_indices(12, 1)].mean())
    mean = np.mean(correlations)
    assert np.std(correlations) / n_seeds**0.5 < 0.008
    # That of the uniform variables that normal ones of this correlation become; ranks among few
    # have less of it.
    limit = 6 / math.pi * math.asin(SHARED / 2)
    if n_masks == 400:
        assert mean == pytest.approx(limit, abs=0.012)
    assert 0.8 * limit < mean < limit + 0.012


@pytest.mark.parametrize("n_masks", [2, 4, 6, 16])
@pytest.mark.parametrize("n_units", [1, 2, 3, 9, 40])
def test_subsets_come_in_pairs_of_sizes_that_are_spread_evenly(n_masks: int, n_units: int) -> None:
    x = torch.rand(2, n_units, dtype=DOUBLE) + 1
    _, kept = kept_by(problem_for(lambda t: t.sum(dim=1).tanh(), x), n_masks=n_masks)
    *subsets, everything, nothing = kept
    assert bool((everything == 1).all())
    assert bool((nothing == 0).all())
    half = n_masks // 2
    for first, second in zip(subsets[:half], subsets[half:], strict=True):
        assert set(first.flatten().tolist()) <= {0.0, 1.0}
        assert torch.equal(first + second, torch.ones_like(first))
    # In the middles of equal parts of half of the units: no subset empty, the larger ones' sizes
    # follow from their being complements.
    sizes = [math.ceil((k + 0.5) / half * n_units / 2) for k in range(half)]
    assert [int(subset[0].sum()) for subset in subsets[:half]] == sizes
    assert all(
        later - size <= math.ceil(n_units / 2 / half) for size, later in itertools.pairwise(sizes)
    )
    assert sizes[0] >= 1
    assert sizes[-1] <= (n_units + 1) // 2


def test_what_is_not_maskable_is_kept() -> None:
    x, b = drawn(3)
    for kept in kept_by(problem_for(net(), x, baselines=b, target=0)):
        assert bool((kept[:, x == b] == 1).all())
        assert bool((kept[:, x != b] < 1).any())


def test_masks_follow_from_the_seed_and_the_number_of_maskable_units() -> None:
    x, b = drawn(3)
    problem = problem_for(net(), x, baselines=b, target=0)
    masks, subsets = kept_by(problem)
    torch.manual_seed(99)
    for ours, again, others in zip(
        (masks, subsets), kept_by(problem), kept_by(problem, seed=1), strict=True
    ):
        assert torch.equal(again, ours)
        assert not torch.equal(others, ours)
    # The first example has three maskable units among four, here the only ones.
    alone = x[0] != b[0]
    model = net()

    def forward(t: Tensor) -> Tensor:
        full = x[0].repeat(len(t), 1)
        full[:, alone] = t
        return model(full)

    own = problem_for(forward, x[:1, alone], baselines=b[:1, alone], target=0)
    for ours, whole in zip(kept_by(own), (masks, subsets), strict=True):
        assert torch.equal(ours[:, 0], whole[:, 0, alone])
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
    # Calls for the masks, as many for their complements, and those for 10 subsets.
    half, of_subsets = {None: (1, 1), 3: (4, 10), 6: (2, 5)}[max_rows]
    assert len(model.noise) == 2 * half + of_subsets
    masks, complements = (torch.cat(model.noise[start : start + half]) for start in (0, half))
    assert torch.equal(masks, complements)
    assert not torch.equal(masks[:3], masks[3:6])
    # The same seed draws the same.
    again = effects_of(replace(problem, max_rows=max_rows), n_masks=8)
    assert torch.equal(again.effects, found.effects)
    # Linear under each noise: the mean over the passes is in what they all have.
    assert bool((found.effects.sign() == (WEIGHTS * (x - b)).sign()).all())


def test_without_noise_all_masks_are_one_call_and_all_subsets_another() -> None:
    rows: list[tuple[int, bool]] = []
    model = net()

    def forward(t: Tensor) -> Tensor:
        rows.append((len(t), t.requires_grad))
        return model(t)

    x, b = drawn(3)
    problem = problem_for(forward, x, baselines=b, target=1)
    assert not problem.draws
    rows.clear()
    effects_of(problem, n_masks=8)
    # The subsets, everything and nothing.
    assert rows == [(24, True), (30, False)]


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
