r"""The averaged mask gradient: the effect of every unit from a few passes under random masks.

For K masks :math:`m_k` of an example's U units, in complementary pairs :math:`m` and :math:`1 - m`,

.. math:: \phi = \frac{1}{K} \sum_{k=1}^{K} \frac{\partial u}{\partial m}\Big|_{m = m_k},
          \qquad u = w_p \log p_c - w_i \log(1 - p_c),

with :math:`p_c` the target class's probability for the masked input. This is the gradient of AML's
objective, averaged over masks and their complements: the prediction term sees a mask, the inverse
term its complement, and over a pair either sees both. With equal weights :math:`u` is the log-odds
of the class. Where the forward function gives a value there are no odds, and :math:`u` is that
value, as it is where the value at the target changes and its odds do not. For a linear function
:math:`\phi` is exact under any masks: what each unit adds to it.

Mask values are spread evenly over [0, 1]: each unit gets each of the K midpoints
:math:`(k - \tfrac12) / K` once, in an order of its own (a Latin hypercube). Averaged over its own
value, a unit's gradient is the whole difference that it makes, while the others are kept in all
shares. The smallest share, :math:`1 / 2K`, is the floor: at 0 what is removed has no gradient.

Source: not the papers', who descend the objective. As an average of gradients over masks it is a
sampled gradient of Owen's multilinear extension (1972), whose average along the diagonal is the
Shapley value; with one value for all units it would be Integrated Gradients (Sundararajan et al.,
2017). Latin hypercubes are those of McKay et al. (1979).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from captum_aml._utils.isolation import isolated_rng
from captum_aml.exceptions import NonFiniteError
from captum_aml.masking.problem import GradientWatch, MaskingProblem, full_precision
from captum_aml.objectives import LogOddsObjective

#: Odds that change by less than this share of the value at the target do not change: the classes
#: move together, and what is left of the odds is rounding.
_NO_ODDS = 1e-3


import os
SHARED = float(os.environ.get("SHARED", 0.25))


@dataclass(frozen=True)
class UnitEffects:
    """The effect of every unit on the forward function's output.

    Attributes:
        effects: (N, U), in the unit of u; 0 for units that are not maskable.
        slope: The change of the forward function's value at the target when u changes by one, (N,):
            the least squares slope over the passes.
    """

    effects: Tensor
    slope: Tensor


def mask_gradient(
    problem: MaskingProblem,
    objective: LogOddsObjective,
    *,
    n_masks: int,
    seed: int,
    dtype: torch.dtype,
) -> UnitEffects:
    """The equation above.

    All masks are one forward and one backward call, unless the problem's ``max_rows`` asks for
    several. Where the forward function draws random numbers the masks and their complements are two
    calls that draw the same.

    Args:
        problem: What is masked and explained.
        objective: The objective, which has a ``log_odds``.
        n_masks: The number of masks K, an even number of at least 2.
        seed: The seed of the masks. An example's masks depend on it and on its number of maskable
            units alone.
        dtype: The masks' dtype.

    Raises:
        NoGradientError: The forward function's result does not depend on the mask.
        NonFiniteError: The forward function, or its gradient, gave NaN or an infinite value.
    """
    masks = _masks(problem.layout.maskable_units, n_masks, seed=seed).to(dtype)
    values_only = problem.readout.is_value
    found = _averaged(problem, None if values_only else objective, masks, seed=seed)
    if values_only or not bool(found.without_odds.any()):
        return found.effects
    plain = _averaged(problem, None, masks, seed=seed).effects
    return UnitEffects(
        torch.where(found.without_odds[:, None], plain.effects, found.effects.effects),
        torch.where(found.without_odds, plain.slope, found.effects.slope),
    )


def _masks(maskable: Tensor, n_masks: int, *, seed: int) -> Tensor:
    """Masks (K, N, U), whose second half are the complements of the first; 1 if not maskable."""
    n_pairs = n_masks // 2
    masks = torch.ones(n_masks, *maskable.shape)
    counts = maskable.sum(dim=1).tolist()
    common = torch.special.ndtri((n_pairs + torch.arange(n_pairs) + 0.5) / n_masks)[:, None]
    for count in set(counts):
        generator = torch.Generator().manual_seed(seed)
        drawn = SHARED**0.5 * common + (1 - SHARED) ** 0.5 * torch.randn(
            n_pairs, count, generator=generator
        )
        # Of each unit the values stand for their ranks, the one furthest from zero for an end.
        ranks = drawn.abs().argsort(dim=0, descending=True).argsort(dim=0)
        below = (ranks + 0.5) / n_masks
        half = torch.where(drawn > 0, 1 - below, below)
        both = torch.cat([half, 1 - half])
        for row in (i for i, n in enumerate(counts) if n == count):
            masks[:, row, maskable[row].cpu()] = both
    return masks.to(maskable.device)


@dataclass(frozen=True)
class _Averaged:
    """Effects, and where the value at the target changed and its odds did not, bool (N,)."""

    effects: UnitEffects
    without_odds: Tensor


def _averaged(
    problem: MaskingProblem, objective: LogOddsObjective | None, masks: Tensor, *, seed: int
) -> _Averaged:
    """The averaged gradient of the objective's log-odds, or of the value at the target if None."""
    n_masks = len(masks)
    total = torch.zeros_like(masks[0])
    odds, values = [], []
    for half in masks.split(n_masks // 2 if problem.draws else n_masks):
        with isolated_rng(seed):
            for some in half.split(problem.masks_per_call(len(half))):
                gradients, u, value = _differentiated(problem, objective, some)
                total += gradients.sum(dim=0)
                odds.append(u)
                values.append(value)
    effects = (total / n_masks).masked_fill(~problem.layout.maskable_units, 0.0)
    if not bool(torch.isfinite(effects).all()):
        raise NonFiniteError(
            "forward_func: expected finite gradients, got NaN or an infinite value for the masked "
            "inputs"
        )
    u, value = (each - each.mean(dim=0) for each in (torch.cat(odds), torch.cat(values)))
    spread = u.square().sum(dim=0)
    slope = torch.where(spread > 0, (u * value).sum(dim=0) / spread.clamp(min=1e-30), 0.0)
    flat = spread.sqrt() < _NO_ODDS * value.square().sum(dim=0).sqrt()
    return _Averaged(UnitEffects(effects, slope), flat)


def _differentiated(
    problem: MaskingProblem, objective: LogOddsObjective | None, masks: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients under R masks (R, N, U), and what was differentiated and the values, (R, N)."""
    where, readout = "the masked inputs", problem.readout
    watch = GradientWatch()
    with torch.enable_grad():
        given = masks.detach().requires_grad_()
        output = problem.forward(given, watch)
        with full_precision(masks.device):
            values = readout.values(output, where=where)
            u = values
            if objective is not None:
                u = objective.log_odds(*readout.log_odds_terms(output, where=where))
            gradients = None
            if u.requires_grad:
                (gradients,) = torch.autograd.grad(u.sum(), given, allow_unused=True)
    watch.check()
    assert gradients is not None  # or the watch had not been reached
    shape = masks.shape[:2]
    return gradients, u.detach().reshape(shape).to(masks), values.detach().reshape(shape).to(masks)
