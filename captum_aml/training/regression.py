r"""Regression loss: mask logits as coefficients of the effects of removing random subsets.

For random subsets :math:`S` of an example's U units, with :math:`v(S)` the target's probability
when exactly the units in :math:`S` are left, the logits :math:`g` of the masker are
read as contributions :math:`\phi_u = (g_u - b) / a`. What is missing to their sum is shared out
evenly, :math:`s = (v(\text{all}) - v(\emptyset) - \sum_u \phi_u) / U`, and the loss is

.. math:: \ell(g) = \frac{1}{K} \sum_{k=1}^{K}
    \Bigl(v(S_k) - v(\emptyset) - \sum_{u \in S_k} (\phi_u + s) \Bigr)^2 + s^2 .

The first term knows differences between units only, which make the ranking; the second one sets
their height: contributions sum to what removing everything takes. Here :math:`b = -2`, so that a
unit that contributes nothing has a mask of 0.12, and :math:`a = 8` logits stand for a probability
of one, so that one that contributes half has a mask of 0.88.

Subsets come in pairs with their complements, their sizes are uniform from 1 to U - 1. They are
removed as the perturbation removes, entirely: with ``attention`` that is deletion but for the
positions of what is left.

Values do not depend on the masker: they are computed once for each example and kept, so that later
epochs cost the masker's own passes alone. No gradient of the explained model is needed.

Source: not the papers'. Learning a regression of removal over many examples is what FastSHAP does
(Jethani et al., ICLR 2022); the distribution of subsets and the keeping of values are our own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from captum_aml._utils.checks import as_count
from captum_aml.maskers.base import NEUTRAL_LOGIT
from captum_aml.masking.problem import MaskingProblem, full_precision
from captum_aml.objectives import Terms
from captum_aml.readout import as_float
from captum_aml.training.data import MAX_EXAMPLES, example_keys, in_training

#: How many logits stand for a probability of one.
LOGITS_PER_UNIT = 8.0

#: Subsets that go through the explained model together, for all examples of a batch: as many rows
#: as the joined pass of the published loss has, twice, but without a graph.
_SUBSETS_PER_PASS = 4


class RegressionLoss:
    """The equation above, with what was computed for each example.

    Args:
        n_subsets: Subsets K of each example, complements included; an even number. Default: 16
        max_examples: The most examples whose values are kept; those of others are computed anew
            in every epoch, for the same subsets. Default: 50,000

    Raises:
        InvalidInputError: ``n_subsets`` is below 2.
    """

    def __init__(self, *, n_subsets: int = 16, max_examples: int = MAX_EXAMPLES) -> None:
        # Pairs: an odd number would leave a subset without its complement.
        self.n_pairs = -(-as_count("n_subsets", n_subsets, least=2) // 2)
        self._max_examples = max_examples
        self._known: dict[bytes, tuple[Tensor, Tensor]] = {}

    def __call__(self, problem: MaskingProblem, logits: Tensor, *, where: str) -> Terms:
        """The term ``regression`` of each example, (N,), in full precision."""
        with full_precision(problem.layout.maskable_units.device):
            return self._terms(problem, as_float(logits), where)

    def _terms(self, problem: MaskingProblem, logits: Tensor, where: str) -> Terms:
        maskable = problem.layout.maskable_units
        kept, values = self._values(problem, where)
        values = values.to(logits.dtype)
        full = _probability(problem, problem.capture.output, where).to(logits.dtype)
        empty = values[:, -1]
        contributions = (logits - NEUTRAL_LOGIT) / LOGITS_PER_UNIT * maskable
        missing = full - empty - contributions.sum(dim=1)
        share = missing / maskable.sum(dim=1).clamp(min=1)
        contributions = contributions + maskable * share.unsqueeze(1)
        predicted = (
            empty.unsqueeze(1) + (kept.to(logits.dtype) @ contributions.unsqueeze(2))[..., 0]
        )
        loss = (predicted - values[:, :-1]).square().mean(dim=1) + share.square()
        # Where nothing can be removed there is nothing to learn.
        loss = torch.where(maskable.any(dim=1), loss, 0.0)
        return Terms(loss, {"regression": loss})

    @torch.no_grad()
    def _values(self, problem: MaskingProblem, where: str) -> tuple[Tensor, Tensor]:
        """Subsets (N, K, U) and their values (N, K + 1), those of the empty subset last."""
        maskable = problem.layout.maskable_units
        keys = _keys(problem)
        if keys is not None and all(key in self._known for key in keys):
            kept = torch.stack([self._known[key][0] for key in keys])
            values = torch.stack([self._known[key][1] for key in keys])
            return kept.to(maskable.device), values.to(maskable.device)
        subsets = _draw(maskable, self.n_pairs, keys)
        kept = torch.cat([subsets, torch.zeros_like(subsets[:, :1])], dim=1)
        values = torch.cat(
            [
                _probability(
                    problem, problem.forward(part.transpose(0, 1).float()), where, part.shape[1]
                )
                for part in kept.split(_SUBSETS_PER_PASS, dim=1)
            ],
            dim=1,
        )
        if keys is not None and len(self._known) + len(keys) <= self._max_examples:
            rows = zip(subsets.cpu(), values.cpu(), strict=True)
            self._known.update(zip(keys, rows, strict=True))
        return subsets, values


def _keys(problem: MaskingProblem) -> list[bytes] | None:
    """The keys of each example's values; None where they are not to be kept."""
    if in_training(problem.site):
        return None
    layout = problem.layout
    maskable = layout.maskable_units
    groups = () if layout.groups is None else (layout.groups.expand(len(maskable), -1),)
    target = problem.readout.target
    index = (problem.readout.target_class,) if target is None else target.unbind(dim=1)
    if problem.readout.foil is not None:
        index = (*index, *problem.readout.foil.unbind(dim=1))
    return example_keys(problem.call, *problem.baselines, maskable, *groups, *index)


def _probability(
    problem: MaskingProblem, output: object, where: str, times: int | None = None
) -> Tensor:
    """The target's probability, (N,), or (N, times) for passes that were joined."""
    log_probs = problem.readout.log_probs(output, where=where)
    target = problem.readout.target_class
    index = target if times is None else target.repeat(times)
    found = log_probs.gather(1, index.unsqueeze(1))[:, 0].exp()
    return found if times is None else found.reshape(times, -1).transpose(0, 1)


def _draw(maskable: Tensor, n_pairs: int, keys: list[bytes] | None) -> Tensor:
    """Random subsets of maskable units, (N, 2 * n_pairs, U), each after its complement.

    An example's subsets depend on its content alone, so that neither its batch nor the epoch, nor a
    run that was resumed, changes them.
    """
    n, width = maskable.shape
    drawn = torch.zeros(n, n_pairs, width, dtype=torch.bool)
    for row in range(n):
        generator = torch.Generator()
        if keys is not None:
            generator.manual_seed(int.from_bytes(keys[row][:7], "big"))
        else:
            generator.manual_seed(int(torch.randint(2**31, ())))
        places = maskable[row].cpu().nonzero().flatten()
        if not len(places):
            continue
        sizes = torch.randint(1, max(2, len(places)), (n_pairs, 1), generator=generator)
        ranks = torch.rand(n_pairs, len(places), generator=generator).argsort(dim=1).argsort(dim=1)
        drawn[row][:, places] = ranks < sizes
    drawn = drawn.to(maskable.device)
    both = torch.stack([drawn, maskable.unsqueeze(1) & ~drawn], dim=2)
    return both.reshape(n, 2 * n_pairs, width)
