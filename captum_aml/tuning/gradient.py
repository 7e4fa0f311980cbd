r"""The averaged mask gradient: the effect of every unit from a few passes under random masks.

For K masks :math:`m_k` of an example's U units, in complementary pairs,

.. math:: \phi = \frac{1}{K} \sum_{k=1}^{K} \frac{\partial u}{\partial m}\Big|_{m = m_k},
          \qquad u = w_p \log p_c - w_i \log(1 - p_c),

with :math:`p_c` the target class's probability for the masked input. This is the gradient of AML's
objective, averaged over masks and their complements: the prediction term sees a mask, the inverse
term its complement, and over a pair either sees both. With equal weights :math:`u` is the log-odds
of the class. Where the forward function gives a value there are no odds, and :math:`u` is that
value. For a linear function :math:`\phi` is exact under any masks: what each unit adds to it.

Source: not the papers', who descend the objective. As an average of gradients over masks it is a
sampled gradient of Owen's multilinear extension (1972), whose average along the diagonal is the
Shapley value.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from captum_aml._utils.isolation import isolated_rng
from captum_aml.exceptions import NonFiniteError
from captum_aml.masking.problem import GradientWatch, MaskingProblem, full_precision
from captum_aml.objectives import LogOddsObjective
from captum_aml.perturbation import JointRemoval

#: What is left of a removed unit. At 0 it would have no gradient.
FLOOR = 0.2


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
    maskable = problem.layout.maskable_units
    design = _design(maskable, n_masks, seed=seed)
    passes: list[_Passes] = []
    # The second half are the complements of the first.
    for half in torch.arange(n_masks).split(n_masks // 2 if problem.draws else n_masks):
        with isolated_rng(seed):
            for some in half.split(problem.masks_per_call(len(half))):
                masks = design.masks[some].to(maskable.device, dtype)
                passes.append(_differentiated(problem, objective, masks, design.straight[some]))
    gradients = torch.cat([each.gradients for each in passes]).masked_fill(~maskable, 0.0)
    u, values = (torch.cat(parts) for parts in zip(*((p.u, p.values) for p in passes), strict=True))
    effects = _mean_of_parts(gradients, design.straight.to(maskable.device))
    return UnitEffects(effects, _slope(u, values))


@dataclass(frozen=True)
class _Design:
    """Masks of all examples, (K, N, U), and which keep every unit at the same share, (K,)."""

    masks: Tensor
    straight: Tensor


def _design(maskable: Tensor, n_masks: int, *, seed: int) -> _Design:
    """Half of the pairs keep every unit at the same share, half keep random subsets of the units.

    Shares are the midpoints of equal parts of [0, 1]; sizes of subsets are spread evenly over 1 to
    U - 1.
    """
    n_pairs = n_masks // 2
    n_straight = n_pairs // 2
    n, width = maskable.shape
    shares = (torch.arange(n_straight) + 0.5) / (2 * n_straight) if n_straight else torch.zeros(0)
    masks = torch.ones(n_pairs, n, width)
    masks[:n_straight] = shares[:, None, None]
    counts = maskable.sum(dim=1).cpu()
    for count in counts.unique().tolist():
        kept = FLOOR + (1 - FLOOR) * _subsets(count, n_pairs - n_straight, seed=seed)
        for row in (counts == count).nonzero().flatten().tolist():
            masks[n_straight:, row, maskable[row].cpu()] = kept
    complements = 1 - masks
    complements[n_straight:] = 1 + FLOOR - masks[n_straight:]
    straight = torch.arange(n_pairs) < n_straight
    return _Design(torch.cat([masks, complements]), straight.repeat(2))


def _subsets(n_units: int, n_subsets: int, *, seed: int) -> Tensor:
    """Random subsets, (n_subsets, n_units), of at most half of the units: 1 where one is kept."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(n_subsets, n_units, generator=generator).argsort(dim=1).argsort(dim=1)
    sizes = ((torch.arange(n_subsets) + 0.5) / n_subsets * n_units / 2).ceil()
    return (order < sizes[:, None]).float()


@dataclass(frozen=True)
class _Passes:
    """What R masked passes gave: gradients (R, N, U), u and the values at the target, (R, N)."""

    gradients: Tensor
    u: Tensor
    values: Tensor


def _differentiated(
    problem: MaskingProblem, objective: LogOddsObjective, masks: Tensor, straight: Tensor
) -> _Passes:
    where, readout = "the masked inputs", problem.readout
    if isinstance(problem.perturbation, JointRemoval):
        hidden = ~straight.repeat_interleave(masks.shape[1]).to(masks.device)
        problem = replace(problem, perturbation=replace(problem.perturbation, hidden=hidden))
    watch = GradientWatch()
    with torch.enable_grad():
        given = masks.requires_grad_()
        output = problem.forward(given, watch)
        with full_precision(masks.device):
            values = readout.values(output, where=where)
            u = values
            if not readout.is_value:
                u = objective.log_odds(*readout.log_odds_terms(output, where=where))
            # Without a gradient the watch says what is wrong.
            (gradients,) = (
                torch.autograd.grad(u.sum(), given, allow_unused=True)
                if u.requires_grad
                else (None,)
            )
    watch.check()
    assert gradients is not None
    if not bool(torch.isfinite(gradients).all()):
        raise NonFiniteError(
            "forward_func: expected finite gradients, got NaN or an infinite value for " + where
        )
    shape = masks.shape[:2]
    return _Passes(gradients, u.detach().reshape(shape), values.detach().reshape(shape))


def _mean_of_parts(gradients: Tensor, straight: Tensor) -> Tensor:
    """The mean gradient of the two parts, each scaled to the mean of their lengths."""
    parts = [gradients[part].mean(dim=0) for part in (straight, ~straight) if bool(part.any())]
    lengths = [part.norm(dim=1, keepdim=True) for part in parts]
    mean = torch.stack(lengths).mean(dim=0)
    scaled = [
        part * torch.where(length > 0, mean / length, 1.0)
        for part, length in zip(parts, lengths, strict=True)
    ]
    return torch.stack(scaled).mean(dim=0)


def _slope(u: Tensor, values: Tensor) -> Tensor:
    """The slope of values (K, N) over u (K, N), 0 where u does not change."""
    u, values = u - u.mean(dim=0), values - values.mean(dim=0)
    spread = u.square().sum(dim=0)
    return torch.where(spread > 0, (u * values).sum(dim=0) / spread.clamp(min=1e-30), 0.0)
