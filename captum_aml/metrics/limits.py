r"""Normalized AOPC: how close a ranking comes to the best there is for this model and this input.

One token after the other is taken away, in the order :math:`r` of a ranking:

.. math::
    \mathrm{AOPC}(r) = \frac{1}{T} \sum_{k=1}^{T} p(X) - p(X \setminus R_k)

How large this can get differs between models and inputs, so that their figures cannot be compared.
With the lowest and the highest value over all orders,

.. math:: \mathrm{NAOPC}(r) = \frac{\mathrm{AOPC}(r) - \min_s \mathrm{AOPC}(s)}
    {\max_s \mathrm{AOPC}(s) - \min_s \mathrm{AOPC}(s)}.

Sufficiency has the same limits up to a constant: to keep the top :math:`k` is to take away the
bottom :math:`T - k`, so that with :math:`\bar r` the reversed order

.. math:: \frac{1}{T} \sum_{k=1}^{T} p(X) - p(R_k)
    = \mathrm{AOPC}(\bar r) - \frac{p(X) - p(\emptyset)}{T}.

For few tokens the limits are exact: the value of an order is a sum over a chain of subsets, so the
best chain follows from the values of the :math:`2^T` subsets by dynamic programming. Beyond, a beam
search finds orders that are nearly the best and the worst; a ranking may then lie a little outside
[0, 1].

Source: Edin et al., "Normalized AOPC: Fixing Misleading Faithfulness Metrics for Feature
Attribution Explainability", 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Unpack

from captum_aml._utils.checks import as_count
from captum_aml.exceptions import InvalidInputError
from captum_aml.masking.call import parse_call
from captum_aml.metrics.conventions import PRESETS, Convention
from captum_aml.metrics.evaluation import RemovalEvaluator
from captum_aml.metrics.faithfulness import comprehensiveness_of, sufficiency_of
from captum_aml.metrics.registry import Metric, MetricInputs, register_metric
from captum_aml.metrics.removal import Removal
from captum_aml.metrics.scoring import EvaluationOptions, evaluators, score_examples
from captum_aml.typing import Baselines, ForwardFunc, Target, TensorOrTuple

_EVERY_COUNT = PRESETS["naopc"]

#: Examples with no more tokens than this are searched exhaustively: at most 256 subsets.
MAX_EXHAUSTIVE = 8

# Beam search lays out subsets of several examples at once up to so many elements.
_VARIANT_ELEMENTS = 1 << 24

# Orders whose AOPC differs by less differ by rounding only.
_LEAST_SPAN = 1e-6


@dataclass(frozen=True)
class AOPCLimits:
    r"""The range that AOPC has over all orders of an example's tokens, for N examples.

    Attributes:
        low: The lowest AOPC, (N,).
        high: The highest, (N,).
        full_drop: What taking all tokens away does, :math:`p(X) - p(\emptyset)`, (N,).
        n_tokens: The number of tokens T, (N,).
        exact: Whether the search was exhaustive, (N,) of bool.
        n_passes: Inputs that the search passed through the model, for all examples together.
    """

    low: Tensor
    high: Tensor
    full_drop: Tensor
    n_tokens: Tensor
    exact: Tensor
    n_passes: int


@dataclass(frozen=True)
class LimitSearch:
    """The search for the limits of normalized AOPC, by default where many examples are scored.

    Attributes:
        beam_size: Orders that are followed at once, for each limit.
        max_tokens: Examples with more tokens are not searched, and have no normalized AOPC: the
            search grows with the square of their number. None: all are.
        max_exhaustive: The most tokens for an exhaustive search.
    """

    beam_size: int = 3
    max_tokens: int | None = 64
    max_exhaustive: int = MAX_EXHAUSTIVE


def aopc_limits(
    forward_func: ForwardFunc,
    inputs: TensorOrTuple,
    baselines: Baselines = None,
    additional_forward_args: object | None = None,
    target: Target = None,
    *,
    removal: str | Removal = "mask",
    beam_size: int = 5,
    max_exhaustive: int = MAX_EXHAUSTIVE,
    max_tokens: int | None = None,
    **options: Unpack[EvaluationOptions],
) -> AOPCLimits:
    r"""Searches for the orders of removal with the lowest and the highest AOPC.

    They depend on the model and the inputs alone, not on any explanation: search once, and give the
    result to :func:`normalized_aopc` for every method. The search takes :math:`2^T` passes for an
    example with up to ``max_exhaustive`` tokens, and at most :math:`B T^2` beyond, for both limits
    together and a beam of B.

    Args:
        forward_func: What is explained.
        inputs: As for :func:`~captum_aml.metrics.comprehensiveness`.
        baselines: Likewise.
        additional_forward_args: Likewise.
        target: Likewise.
        removal: How tokens are removed. Default: "mask", as published.
        beam_size: As in :class:`LimitSearch`. Default: 5, as published.
        max_exhaustive: Likewise. Default: 8.
        max_tokens: Likewise. Default: None, all examples are searched.
        **options: See :class:`EvaluationOptions`.

    Raises:
        InvalidInputError: An argument has a wrong type, shape or range.
        NonFiniteError: The model's output is NaN or infinite.
    """
    search = LimitSearch(
        as_count("beam_size", beam_size, least=1),
        max_tokens,
        as_count("max_exhaustive", max_exhaustive),
    )
    if search.max_exhaustive > 20:
        raise InvalidInputError(
            f"max_exhaustive: expected at most 20 tokens (2^20 subsets), got {max_exhaustive}"
        )
    call = parse_call(inputs, baselines, target, additional_forward_args)
    found = evaluators(forward_func, call, **options)
    return joined([limits_of(evaluator, removal, search) for evaluator in found])


def joined(parts: Sequence[AOPCLimits]) -> AOPCLimits:
    """The limits of several groups of examples as those of one."""
    names = ("low", "high", "full_drop", "n_tokens", "exact")
    tensors = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    return AOPCLimits(**tensors, n_passes=sum(part.n_passes for part in parts))


def normalized_aopc(
    forward_func: ForwardFunc,
    inputs: TensorOrTuple,
    attributions: TensorOrTuple,
    baselines: Baselines = None,
    additional_forward_args: object | None = None,
    target: Target = None,
    *,
    metric: Literal["comprehensiveness", "sufficiency"] = "comprehensiveness",
    limits: AOPCLimits | None = None,
    removal: str | Removal = "mask",
    beam_size: int = 5,
    **options: Unpack[EvaluationOptions],
) -> Tensor:
    """AOPC over every number of tokens, on a scale from the worst order to the best.

    For comprehensiveness 1 is the best order and 0 the worst: higher is better. For sufficiency 0
    is the best: lower is better. An example has NaN where no order differs from another.

    Args:
        forward_func: What is explained.
        inputs: As for :func:`~captum_aml.metrics.comprehensiveness`.
        attributions: Likewise.
        baselines: Likewise.
        additional_forward_args: Likewise.
        target: Likewise.
        metric: Which AOPC. Default: "comprehensiveness".
        limits: What :func:`aopc_limits` found for the same call and removal. Default: None, which
            searches.
        removal: How tokens are removed. Default: "mask", as published.
        beam_size: For the search. Default: 5.
        **options: See :class:`EvaluationOptions`.

    Returns:
        A value per example, (N,), float64 on the CPU.

    Raises:
        InvalidInputError: An argument has a wrong type, shape or range.
        NonFiniteError: Scores, or the model's output, are NaN or infinite.
    """
    if metric not in ("comprehensiveness", "sufficiency"):
        raise InvalidInputError(
            f"metric: expected 'comprehensiveness' or 'sufficiency', got {metric!r}"
        )
    if limits is None:
        limits = aopc_limits(
            forward_func,
            inputs,
            baselines,
            additional_forward_args,
            target,
            removal=removal,
            beam_size=beam_size,
            **options,
        )
    of = comprehensiveness_of if metric == "comprehensiveness" else sufficiency_of
    score = partial(of, convention=_EVERY_COUNT, removal=removal, aopc=True)
    call = parse_call(inputs, baselines, target, additional_forward_args)
    values = score_examples(score, forward_func, call, attributions, **options)
    if limits.low.shape != values.shape:
        raise InvalidInputError(
            f"limits: expected those of {len(values)} examples, got {len(limits.low)}"
        )
    return normalize(values, limits, metric=metric)


def normalize(values: Tensor, limits: AOPCLimits, *, metric: str) -> Tensor:
    """AOPC values (N,) over every number of tokens on the scale of their limits."""
    low, high = limits.low, limits.high
    if metric == "sufficiency":
        shift = limits.full_drop / limits.n_tokens
        low, high = low - shift, high - shift
    span = high - low
    differs = span > _LEAST_SPAN
    return torch.where(differs, (values - low) / torch.where(differs, span, 1.0), torch.nan)


def limits_of(
    evaluator: RemovalEvaluator, removal: str | Removal, search: LimitSearch
) -> AOPCLimits:
    """The limits (N,) of an evaluator's examples; NaN where the search leaves one out."""
    before = evaluator.n_passes
    sizes = evaluator.n_tokens
    low = torch.full((len(sizes),), torch.nan, dtype=torch.float64)
    high, full = low.clone(), low.clone()
    most = max(sizes) if search.max_tokens is None else search.max_tokens
    searched = [row for row, size in enumerate(sizes) if 0 < size <= most]
    if searched:
        rows = torch.tensor(searched)
        nothing = torch.zeros_like(evaluator.tokens[rows.to(evaluator.tokens.device)])
        full[rows] = evaluator.originals[rows] - evaluator.values(rows, nothing, removal)
    searched.sort(key=sizes.__getitem__)
    width, beam = evaluator.tokens.shape[1], search.beam_size
    exact = [size <= search.max_exhaustive for size in sizes]
    short, long = ([row for row in searched if exact[row] is few] for few in (True, False))
    for group in _groups(short, [width << sizes[row] for row in short]):
        for row, ends in zip(group, _exhaustive(evaluator, removal, group), strict=True):
            low[row], high[row] = ends
    for group in _groups(long, [width * 2 * beam * sizes[row] for row in long]):
        for row, ends in zip(group, _beam(evaluator, removal, group, beam), strict=True):
            low[row], high[row] = ends
    return AOPCLimits(
        low=low,
        high=high,
        full_drop=full,
        n_tokens=torch.tensor(sizes),
        exact=torch.tensor(exact),
        n_passes=evaluator.n_passes - before,
    )


def _groups(rows: Sequence[int], elements: Sequence[int]) -> Iterator[list[int]]:
    """Examples that are searched together: the more elements each lays out, the fewer."""
    group: list[int] = []
    total = 0
    for row, size in zip(rows, elements, strict=True):
        if group and total + size > _VARIANT_ELEMENTS:
            yield group
            group, total = [], 0
        group.append(row)
        total += size
    if group:
        yield group


def _drops(
    evaluator: RemovalEvaluator,
    removal: str | Removal,
    rows: Sequence[int],
    removed: Sequence[np.ndarray],
) -> list[np.ndarray]:
    """The effect of taking away, (V,) for each row and V sets of its tokens, (V, T) of bool."""
    tokens = evaluator.tokens.cpu().numpy()
    keep = [np.ones((len(gone), tokens.shape[1]), dtype=bool) for gone in removed]
    for row, kept, gone in zip(rows, keep, removed, strict=True):
        kept[:, tokens[row]] = ~gone
    counts = [len(gone) for gone in removed]
    index = torch.tensor(rows).repeat_interleave(torch.tensor(counts))
    device = evaluator.tokens.device
    kept_units = torch.from_numpy(np.concatenate(keep)).to(device)
    drops = evaluator.originals[index] - evaluator.values(index.to(device), kept_units, removal)
    return [part.numpy() for part in drops.split(counts)]


def _exhaustive(
    evaluator: RemovalEvaluator, removal: str | Removal, rows: list[int]
) -> list[tuple[float, float]]:
    """The lowest and the highest AOPC, by dynamic programming over each example's subsets."""
    n_tokens = evaluator.n_tokens
    sizes = [n_tokens[row] for row in rows]
    # Bit i of a subset's number says whether token i is gone.
    subsets = [(np.arange(1 << size)[:, None] >> np.arange(size) & 1) == 1 for size in sizes]
    drops = _drops(evaluator, removal, rows, subsets)
    return [_best_chains(part, size) for part, size in zip(drops, sizes, strict=True)]


def _best_chains(drops: np.ndarray, size: int) -> tuple[float, float]:
    """The lowest and the highest mean over a chain of subsets that grow by one token."""
    low, high = np.zeros(len(drops)), np.zeros(len(drops))
    for subset in range(1, len(drops)):
        before = [subset & ~(1 << i) for i in range(size) if subset >> i & 1]
        low[subset] = drops[subset] + low[before].min()
        high[subset] = drops[subset] + high[before].max()
    return float(low[-1]) / size, float(high[-1]) / size


@dataclass(frozen=True)
class _State:
    """A beam: what is gone in each of its orders, (B, T), and their sums so far, (B,)."""

    row: int
    sign: int
    gone: np.ndarray
    sums: np.ndarray

    def successors(self) -> _State:
        """All ways to take away one token more, each different set once, with its best sum."""
        beams, places = np.nonzero(~self.gone)
        gone = self.gone[beams]
        gone[np.arange(len(places)), places] = True
        sums = self.sums[beams]
        best: dict[bytes, int] = {}
        for index, key in enumerate(np.packbits(gone, axis=1)):
            known = best.setdefault(key.tobytes(), index)
            if self.sign * sums[index] > self.sign * sums[known]:
                best[key.tobytes()] = index
        chosen = list(best.values())
        return replace(self, gone=gone[chosen], sums=sums[chosen])

    def best(self, drops: np.ndarray, beam_size: int) -> _State:
        """The orders to go on with."""
        sums = self.sums + drops
        chosen = np.argsort(-self.sign * sums, kind="stable")[:beam_size]
        return replace(self, gone=self.gone[chosen], sums=sums[chosen])


def _beam(
    evaluator: RemovalEvaluator, removal: str | Removal, rows: list[int], beam_size: int
) -> list[tuple[float, float]]:
    """The lowest and the highest AOPC that beam search finds for each example."""
    n_tokens = evaluator.n_tokens
    sizes = {row: n_tokens[row] for row in rows}
    states = [
        _State(row, sign, np.zeros((1, sizes[row]), dtype=bool), np.zeros(1))
        for row in rows
        for sign in (-1, 1)
    ]
    for step in range(max(sizes.values())):
        going = [i for i, state in enumerate(states) if step < sizes[state.row]]
        successors = [states[i].successors() for i in going]
        rows_now, gone = [s.row for s in successors], [s.gone for s in successors]
        drops = _drops(evaluator, removal, rows_now, gone)
        for i, state, part in zip(going, successors, drops, strict=True):
            states[i] = state.best(part, beam_size)
    found = [float(state.sums[0]) / sizes[state.row] for state in states]
    return list(zip(found[::2], found[1::2], strict=True))


def _register(name: str, title: str, of: Callable[..., Tensor]) -> None:
    """Registers a normalized metric."""
    metric = of.__name__.removesuffix("_of")
    higher = metric == "comprehensiveness"
    best, worst = ("1", "0") if higher else ("0", "1")
    description = (
        f"AOPC {metric} over every number of tokens on a scale where {best} is the best ranking "
        f"that a search finds for the text and {worst} the worst; removal by {{removal}}."
    )

    @register_metric(
        Metric(name, title, higher, "faithfulness", description),
        removal="convention",
        needs_limits=True,
        is_default=higher,
    )
    def _(inputs: MetricInputs, scores: Tensor, _: Convention, removal: Removal | None) -> Tensor:
        assert removal is not None
        values = of(inputs.evaluator, scores, _EVERY_COUNT, removal, aopc=True)
        return normalize(values, inputs.limits_of(removal), metric=metric)


_register("normalized-aopc", "NAOPC", comprehensiveness_of)
_register("normalized-aopc-sufficiency", "NAOPC suff.", sufficiency_of)
