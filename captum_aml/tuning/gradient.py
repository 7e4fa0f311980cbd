r"""The averaged mask gradient: the effect of every unit from a few passes under random masks.

For K masks :math:`m_k` of an example's U units, in complementary pairs :math:`m` and :math:`1 - m`,

.. math:: \phi = \frac{1}{K} \sum_{k=1}^{K} g_k, \qquad
          g_k = \frac{\partial u}{\partial m}\Big|_{m = m_k}, \qquad
          u = w_p \log p_c - w_i \log(1 - p_c),

with :math:`p_c` the target class's probability for the masked input. This is the gradient of AML's
objective, averaged over masks and their complements: the prediction term sees a mask, the inverse
term its complement, and over a pair either sees both. With equal weights :math:`u` is the log-odds
of the class. Where the forward function gives a value there are no odds, and :math:`u` is that
value, as it is where the value at the target changes and its odds do not.

Mask values are spread evenly over [0, 1]: each unit gets each of the K midpoints
:math:`(k - \tfrac12) / K` once (a Latin hypercube). Averaged over its own value, a unit's gradient
is the whole difference that it makes, while the others are kept in all shares. Values of two units
are correlated, by 0.21 for 16 masks, as ranks of normal variables with a correlation of 0.25 are:
with 1 all units have one value, and :math:`\phi` is Integrated Gradients. The smallest share,
:math:`1 / 2K`, is the floor: at 0 what is removed has no gradient.

A gradient knows nothing of what happens when a unit is gone. So K subsets :math:`z_j` of the units
are kept, and the others replaced by their baselines, without a gradient, and :math:`\phi` is the
mean of the prior of a linear regression of :math:`v = p_c` (of the value, where it is one):

.. math:: v(z_j) = \beta_0 + \sum_i z_{ji} \beta_i + \varepsilon_j, \qquad
          \beta_i \sim \mathcal{N}\Bigl(a \phi_i, \;
          \frac{a^2}{4K} \sum_k (g_{ki} - \phi_i)^2 \Bigr),

with the scale :math:`a` that fits best, and the variance of :math:`\varepsilon` that makes the
values likeliest, the constant at its best. The posterior mean of :math:`\beta / a` is the effect.
What has the same gradient under all masks is known, and keeps it: where :math:`u` is linear
:math:`\phi` is exact, and a unit without any gradient has an effect of 0. Where no :math:`a > 0`
fits, as of a token that, blended with its baseline, is another token to the model, gradients tell
how much a unit may count and not which way: the prior's mean is 0 and its variance has
:math:`\phi_i^2` added, with the :math:`a` that gives :math:`a \phi` the values' spread. Without
strong evidence against values of noise alone the effect is :math:`\phi_i`.

Source: not the papers', who descend the objective. As an average of gradients over masks
:math:`\phi` is a sampled gradient of Owen's multilinear extension (1972), whose average along the
diagonal is the Shapley value; Integrated Gradients are those of Sundararajan et al. (2017), Latin
hypercubes those of McKay et al. (1979). Regression on values of subsets is that of LIME and SHAP;
the prior, and its choice by the marginal likelihood (MacKay, 1992), are not theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

from captum_aml._utils.isolation import isolated_rng
from captum_aml.exceptions import NonFiniteError
from captum_aml.masking.problem import GradientWatch, MaskingProblem, full_precision
from captum_aml.objectives import LogOddsObjective
from captum_aml.perturbation import Blend, JointRemoval

#: The share of its variance that each unit's mask value has in common with the others'.
SHARED = 0.25

#: How much of the gradients' variance over the masks the prior has: with all of it subsets count
#: for more, and effects depend more on which were drawn.
TRUST = 0.25

#: Odds that change by less than this share of the value at the target do not change: the classes
#: move together, and what is left of the odds is rounding.
_NO_ODDS = 1e-3

#: Variances that the regression's noise may have, in mean squares of what the prior leaves.
_NOISE = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)

#: Twice the logarithm of a Bayes factor that is strong evidence (Kass and Raftery, 1995).
_STRONG = 6.0

_WHERE = "the masked inputs"


@dataclass(frozen=True)
class UnitEffects:
    """The effect of every unit on the forward function's output.

    Attributes:
        effects: (N, U), in the unit of u; 0 for units that are not maskable.
        slope: The change of the forward function's value at the target when u changes by one, (N,):
            the least squares slope over the masks.
    """

    effects: Tensor
    slope: Tensor


def mask_gradient(
    problems: Sequence[MaskingProblem],
    objective: LogOddsObjective,
    *,
    n_masks: int,
    seed: int,
    dtype: torch.dtype,
) -> list[UnitEffects]:
    """The equations above, for each of several targets of the same examples.

    All masks are one forward call, with one backward call for each target, and all subsets one
    forward call, unless the problems' ``max_rows`` asks for several. Where the forward function
    draws random numbers the masks and their complements are two calls that draw the same.

    Args:
        problems: What is masked and explained; they differ in their targets alone.
        objective: The objective, which has a ``log_odds``.
        n_masks: The number of masks K, an even number of at least 2.
        seed: The seed of the masks. An example's masks depend on it and on its number of maskable
            units alone.
        dtype: The masks' dtype.

    Raises:
        NoGradientError: The forward function's result does not depend on the mask.
        NonFiniteError: The forward function, or its gradient, gave NaN or an infinite value.
    """
    maskable = problems[0].layout.maskable_units
    masks = _each(maskable, n_masks, _hypercube, seed=seed).to(dtype)
    subsets = _each(maskable, n_masks, _subsets, seed=seed).to(dtype)

    def effects(
        of: Sequence[MaskingProblem], goal: LogOddsObjective | None
    ) -> tuple[list[UnitEffects], list[_Averaged]]:
        averaged = _averaged(of, goal, masks, seed=seed)
        return _refined(of, goal, averaged, subsets, seed=seed), averaged

    if problems[0].readout.is_value:
        return effects(problems, None)[0]
    found, averaged = effects(problems, objective)
    lacking = [i for i, each in enumerate(averaged) if bool(each.without_odds.any())]
    if lacking:
        by_value, _ = effects([problems[i] for i in lacking], None)
        for i, plain in zip(lacking, by_value, strict=True):
            without = averaged[i].without_odds
            found[i] = UnitEffects(
                torch.where(without[:, None], plain.effects, found[i].effects),
                torch.where(without, plain.slope, found[i].slope),
            )
    return found


#: Draws one mask of each pair, (P, U), from P, U and a generator.
_Draw: TypeAlias = Callable[[int, int, torch.Generator], Tensor]


def _each(maskable: Tensor, n_masks: int, draw: _Draw, *, seed: int) -> Tensor:
    """Masks (K, N, U), whose second half are the complements of the first; 1 if not maskable."""
    masks = torch.ones(n_masks, *maskable.shape)
    counts = maskable.sum(dim=1).tolist()
    for count in set(counts):
        half = draw(n_masks // 2, count, torch.Generator().manual_seed(seed))
        both = torch.cat([half, 1 - half])
        for row in (i for i, n in enumerate(counts) if n == count):
            masks[:, row, maskable[row].cpu()] = both
    return masks.to(maskable.device)


def _hypercube(n_pairs: int, n_units: int, generator: torch.Generator) -> Tensor:
    """Mask values of one of each pair, (P, U): midpoints, each once for a unit in the end."""
    common = torch.special.ndtri((n_pairs + torch.arange(n_pairs) + 0.5) / (2 * n_pairs))
    own = torch.randn(n_pairs, n_units, generator=generator)
    drawn = SHARED**0.5 * common[:, None] + (1 - SHARED) ** 0.5 * own
    # Of each unit the values stand for their ranks, the one furthest from zero for an end.
    ranks = drawn.abs().T.argsort(dim=1, descending=True).argsort(dim=1).T
    below = (ranks + 0.5) / (2 * n_pairs)
    return torch.where(drawn > 0, 1 - below, below)


def _subsets(n_pairs: int, n_units: int, generator: torch.Generator) -> Tensor:
    """Random subsets (P, U) of up to half of the units, of sizes spread evenly: 1 where kept."""
    order = torch.rand(n_pairs, n_units, generator=generator).argsort(dim=1).argsort(dim=1)
    sizes = ((torch.arange(n_pairs) + 0.5) / n_pairs * n_units / 2).ceil()
    return (order < sizes[:, None]).float()


@dataclass(frozen=True)
class _Averaged:
    """Gradients over the masks.

    Attributes:
        mean: Their mean, (N, U); 0 for units that are not maskable.
        variance: Their variance, (N, U), likewise.
        slope: The slope of the value at the target over u, (N,).
        without_odds: Where the value at the target changed and its odds did not, bool (N,).
    """

    mean: Tensor
    variance: Tensor
    slope: Tensor
    without_odds: Tensor


class _Moments:
    """Moments of the gradients under all masks, from those of some at a time.

    Args:
        units: The units, bool (N, U): True where one is maskable.
        dtype: The gradients' dtype.
    """

    def __init__(self, units: Tensor, dtype: torch.dtype) -> None:
        self._units, self._seen = units, 0
        self._mean = self._spread = torch.zeros_like(units, dtype=dtype)
        self._passes: list[Tensor] = []

    def add(self, gradients: Tensor, numbers: Tensor) -> None:
        """Takes gradients under R masks (R, N, U), and u, odds and values there (3, R, N)."""
        share = len(gradients) / (self._seen + len(gradients))
        change = gradients.mean(dim=0) - self._mean
        spread = (1 - share) * (self._spread + share * change.square())
        self._mean = self._mean + share * change
        self._spread = spread + share * gradients.var(dim=0, correction=0)
        self._seen += len(gradients)
        self._passes.append(numbers)

    def averaged(self) -> _Averaged:
        """What they say.

        Raises:
            NonFiniteError: A gradient was NaN or infinite.
        """
        if not bool(torch.isfinite(self._spread).all()):
            raise NonFiniteError(
                "forward_func: expected finite gradients, got NaN or an infinite value for "
                + _WHERE
            )
        u, odds, value = torch.cat(self._passes, dim=1)
        of_u, of_odds, of_value = (x.std(dim=0, correction=0) for x in (u, odds, value))
        return _Averaged(
            self._mean.masked_fill(~self._units, 0.0),
            self._spread.masked_fill(~self._units, 0.0),
            _slope(u, value),
            # LA's u is nothing where the class has next to no probability.
            (of_odds < _NO_ODDS * of_value) | ((of_u == 0) & (of_value > 0)),
        )


def _averaged(
    problems: Sequence[MaskingProblem],
    objective: LogOddsObjective | None,
    masks: Tensor,
    *,
    seed: int,
) -> list[_Averaged]:
    """The averaged gradient of the objective's log-odds, or of the value at the target if None."""
    problem = problems[0]
    moments = [_Moments(problem.layout.maskable_units, masks.dtype) for _ in problems]
    for half in masks.split(len(masks) // 2 if problem.draws else len(masks)):
        with isolated_rng(seed):
            for some in half.split(problem.masks_per_call(len(half))):
                found = _differentiated(problems, objective, some)
                for each, (gradients, numbers) in zip(moments, found, strict=True):
                    each.add(gradients, numbers)
    return [each.averaged() for each in moments]


def _differentiated(
    problems: Sequence[MaskingProblem], objective: LogOddsObjective | None, masks: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """The gradients under R masks (R, N, U), and u, log-odds and values at the target (3, R, N)."""
    found = []
    watch = GradientWatch()
    with torch.enable_grad():
        given = masks.detach().requires_grad_()
        output = problems[0].forward(given, watch)
        for left, problem in zip(range(len(problems) - 1, -1, -1), problems, strict=True):
            with full_precision(masks.device):
                readout = problem.readout
                u = odds = values = readout.values(output, where=_WHERE)
                if objective is not None:
                    log_p, log_rest = readout.log_odds_terms(output, where=_WHERE)
                    u, odds = objective.log_odds(log_p, log_rest), log_p - log_rest
                gradients = None
                if u.requires_grad:
                    (gradients,) = torch.autograd.grad(
                        u.sum(), given, retain_graph=left > 0, allow_unused=True
                    )
            watch.check()
            assert gradients is not None  # or the watch had not been reached
            numbers = torch.stack([u, odds, values]).detach().to(masks)
            found.append((gradients, numbers.reshape(3, *masks.shape[:2])))
    return found


@torch.no_grad()
def _refined(
    problems: Sequence[MaskingProblem],
    objective: LogOddsObjective | None,
    averaged: Sequence[_Averaged],
    subsets: Tensor,
    *,
    seed: int,
) -> list[UnitEffects]:
    """The posteriors of the regressions, whose priors the gradients are.

    Args:
        problems: What is masked and explained.
        objective: That of the gradients; None where they are the value's.
        averaged: The gradients over the masks, for each problem.
        subsets: The subsets that are kept, (K, N, U).
        seed: The seed of what the forward function draws.
    """
    problem = problems[0]
    if isinstance(problem.perturbation, JointRemoval):
        problem = replace(problem, perturbation=Blend())
    removed = (~problem.layout.maskable_units).to(subsets)
    kept = torch.cat([subsets, torch.ones_like(subsets[:1]), removed[None]])
    passes: list[list[Tensor]] = [[] for _ in problems]
    for part in kept.split(problem.masks_per_call(len(kept))):
        with isolated_rng(seed):
            output = problem.forward(part)
        for values, each in zip(passes, problems, strict=True):
            v = each.readout.values(output, where=_WHERE)
            if objective is not None:
                v = each.readout.log_odds_terms(output, where=_WHERE)[0]
            values.append(v.reshape(len(part), -1))
    joined = [torch.cat(values) for values in passes]
    if objective is not None:
        # Relative to an example's largest, which changes no effect: of a long answer all
        # probabilities may be too small for a number.
        joined = [(log_p - log_p.amax(dim=0)).exp() for log_p in joined]
    return [_posterior(values, kept, each) for values, each in zip(joined, averaged, strict=True)]


def _posterior(values: Tensor, kept: Tensor, averaged: _Averaged) -> UnitEffects:
    """The posterior of one regression.

    Args:
        values: The values of all subsets, (K + 2, N).
        kept: The subsets, (K + 2, N, U).
        averaged: The prior.
    """
    # On the CPU, since not every device has float64; in (N, K + 2, ...), without the means: the
    # constant is free.
    v, z, prior, variance = (
        each.cpu().double() for each in (values, kept, averaged.mean, averaged.variance)
    )
    y = (v - v.mean(dim=0)).T[..., None]
    z = (z - z.mean(dim=0)).transpose(0, 1)
    prior, variance = prior[..., None], variance[..., None]
    fitted = z @ prior
    scale = _slope(fitted, y, dim=1)[..., None]
    # Where values fall as the gradients say they rise, gradients tell what counts, not which way.
    falls = scale <= 0
    size = fitted.square().sum(dim=1, keepdim=True)
    fitting = (y.square().sum(dim=1, keepdim=True) / _positive(size)).sqrt()
    scale = torch.where(falls, fitting, scale)
    mean = torch.where(falls, 0.0, prior)
    variance = variance + torch.where(falls, prior.square(), 0.0)
    loadings = TRUST * scale.square() * variance * z.transpose(1, 2)
    solution, strong = _likeliest(z @ loadings, y - scale * (z @ mean))
    effects = mean + loadings @ solution / _positive(scale)
    # Values that may be noise alone say nothing of the gradients.
    strong = strong[:, None, None] & (y != 0).any(dim=1, keepdim=True)
    effects = torch.where(falls & ~strong, prior, effects)
    return UnitEffects(effects[..., 0].to(averaged.mean), averaged.slope)


def _likeliest(covariance: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
    """What solves (covariance + noise) x = rest, under the noise that makes the rest likeliest.

    Args:
        covariance: That of the values by the prior, (N, J, J).
        rest: What the prior's mean leaves of them, (N, J, 1).

    Returns:
        x (N, J, 1), and whether that is strong evidence against noise alone, bool (N,).
    """
    n_values = rest.shape[1]
    identity = torch.eye(n_values, dtype=rest.dtype, device=rest.device)
    size = covariance.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None]
    noise = _positive(rest.square().mean(dim=1, keepdim=True) + 1e-9 * size)
    likelihoods, solutions = [], []
    for multiple in _NOISE:
        factor = torch.linalg.cholesky(covariance + multiple * noise * identity)
        solution = torch.cholesky_solve(rest, factor)
        log_determinant = 2 * factor.diagonal(dim1=1, dim2=2).log().sum(dim=1)
        likelihoods.append(-log_determinant - (rest * solution).sum(dim=(1, 2)))
        solutions.append(solution)
    likelihood, best = torch.stack(likelihoods).max(dim=0)
    by_noise = -n_values * (noise[:, 0, 0].log() + 1)
    chosen = torch.stack(solutions)[best, torch.arange(len(best), device=best.device)]
    return chosen, likelihood > by_noise + _STRONG


def _slope(x: Tensor, y: Tensor, dim: int = 0) -> Tensor:
    """The least squares slope of y over x along a dimension, 0 where x does not change."""
    x, y = x - x.mean(dim=dim, keepdim=True), y - y.mean(dim=dim, keepdim=True)
    return (x * y).sum(dim=dim) / _positive(x.square().sum(dim=dim))


def _positive(sizes: Tensor) -> Tensor:
    """Sizes to divide by: where nothing changes, what is divided is 0 as well."""
    return torch.where(sizes > 0, sizes, 1.0)
