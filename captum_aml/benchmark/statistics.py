"""Intervals, paired tests, ranks and the Pareto front over per-example values.

Pure functions of arrays. A missing value (a text that a method could not explain, or a metric
that is not defined for it) is NaN everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from captum_aml._utils.optional import require
from captum_aml.exceptions import InvalidInputError
from captum_aml.metrics import Metric

if TYPE_CHECKING:
    import numpy.typing as npt

# Resamples of all examples and seeds held at a time, in values; 32 MiB as float64.
_CHUNK = 4 * 1024 * 1024


def bootstrap_interval(
    values: npt.ArrayLike,
    *,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
    r"""Mean over examples and seeds with a two-level percentile bootstrap interval.

    .. math::
        \bar v = \frac{1}{N} \sum_{n=1}^{N} \frac{1}{S_n} \sum_{s} v_{sn}

    with :math:`S_n` the seeds that have a value for example `n`, so that every example counts once.
    Each resample draws N examples and, for all of them together, S seeds, both with replacement
    (Owen 2007, "The pigeonhole bootstrap"); the interval lies between percentiles of the resampled
    means (Efron and Tibshirani 1993, chapter 13). With one seed that is
    ``scipy.stats.bootstrap(method="percentile")``, which has no second level. A handful of seeds
    shows less than their full spread: what a seed shifts in all examples alike enters the variance
    with (S - 1) / S of its size.

    Args:
        values: One value per seed and example (S, N), or per example (N,); NaN where missing.
        n_resamples: The number of resamples. Default: 2000.
        confidence: The interval's coverage, above 0 and below 1. Default: 0.95.
        seed: Seed of the resampling. Default: 0.

    Returns:
        Mean, lower and upper end. The mean is NaN without any value; the ends are NaN with fewer
        than two examples, from which nothing can be resampled. An infinite value makes the mean
        infinite and leaves no interval.

    Raises:
        InvalidInputError: A wrong shape, or an option out of its range.
    """
    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if table.ndim != 2:
        raise InvalidInputError(f"values: expected the shape (S, N), got {table.shape}")
    if n_resamples < 1:
        raise InvalidInputError(f"n_resamples: expected 1 or more, got {n_resamples}")
    if not 0 < confidence < 1:
        raise InvalidInputError(f"confidence: expected a number in (0, 1), got {confidence}")
    present = ~np.isnan(table)
    table = table[present.any(axis=1)][:, present.any(axis=0)]
    if table.size == 0:
        return math.nan, math.nan, math.nan
    mean = float(example_means(table).mean())
    if table.shape[1] < 2 or not math.isfinite(mean):
        return mean, math.nan, math.nan
    means = _resampled_means(table, n_resamples, np.random.default_rng(seed))
    tail = 100 * (1 - confidence) / 2
    low, high = np.nanpercentile(means, [tail, 100 - tail])
    return mean, float(low), float(high)


def example_means(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Mean over the seeds that have a value: (S, N) to (N,), NaN where none has one."""
    table = np.asarray(values, dtype=np.float64)
    present = ~np.isnan(table)
    counts = present.sum(axis=0)
    sums = np.where(present, table, 0.0).sum(axis=0)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def paired_p_value(
    first: npt.ArrayLike, second: npt.ArrayLike, *, n_resamples: int = 9999, seed: int = 0
) -> float:
    r"""Two-sided p-value of a paired permutation test of the mean difference.

    If the two methods did equally well, the sign of each example's difference :math:`d_n` would be
    a coin's. The p-value is the share of sign patterns whose mean is at least as far from 0 as

    .. math:: \bar d = \frac{1}{N} \sum_n d_n,

    over all patterns for few examples, otherwise over ``n_resamples`` random ones and the observed
    one (Fisher 1935; Phipson and Smyth 2010). It asks about the very number that is reported, the
    difference of the means, so that its direction is never another one.

    Args:
        first: One value per example (N,), seeds averaged; NaN where missing.
        second: The other method's values for the same examples (N,).
        n_resamples: Random patterns. Default: 9999.
        seed: Their seed. Default: 0.

    Returns:
        The p-value: 1 where nothing differs, NaN without a common example or where a difference is
        infinite.

    Raises:
        InvalidInputError: The shapes differ or are not (N,).
        ImportError: SciPy is not installed.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise InvalidInputError(
            f"first, second: expected one value each per example, got {a.shape} and {b.shape}"
        )
    both = ~(np.isnan(a) | np.isnan(b))
    # Equal infinities do not differ; subtracting them would give NaN.
    a, b = a[both], b[both]
    differences = np.zeros_like(a)
    np.subtract(a, b, out=differences, where=a != b)
    if differences.size == 0 or not np.isfinite(differences).all():
        return math.nan
    # Signs of zeros change nothing.
    differences = differences[differences != 0]
    if differences.size == 0:
        return 1.0
    require("scipy", package="scipy", feature="the paired test", extra="benchmark")
    from scipy.stats import permutation_test

    if differences.size == 1:
        return 1.0  # both signs are as far from 0
    found = permutation_test(
        (differences,),
        np.sum,
        permutation_type="samples",
        vectorized=True,
        n_resamples=n_resamples,
        batch=max(1, _CHUNK // differences.size),
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    r"""P-values corrected for their number (Holm 1979, "A simple sequentially rejective ...").

    .. math::
        \tilde p_{(i)} = \max_{j \le i} \min\bigl(1, (m - j + 1)\, p_{(j)}\bigr)

    with :math:`p_{(1)} \le \dots \le p_{(m)}`. Rejecting where the result is at most
    :math:`\alpha` keeps the probability of any false rejection at most :math:`\alpha`, whatever the
    dependence between the tests.

    Args:
        p_values: One per comparison; NaN where none was made: it stays NaN and does not count.

    Returns:
        The corrected values, in the order given.

    Raises:
        InvalidInputError: A value is outside [0, 1].
    """
    if any(p < 0 or p > 1 for p in p_values):
        raise InvalidInputError("p_values: expected numbers in [0, 1]")
    made = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    corrected = [math.nan] * len(p_values)
    largest = 0.0
    for position, (p, index) in enumerate(made):
        largest = max(largest, min(1.0, (len(made) - position) * p))
        corrected[index] = largest
    return corrected


def mean_ranks(
    table: Mapping[str, Mapping[str, float]], metrics: Sequence[Metric]
) -> dict[str, float | None]:
    """Mean rank of each method, 1 for the best.

    Each metric that has a direction ranks the methods that have a value for it; equal values share
    the mean of their ranks. A method's mean goes over the metrics that it has a value for.

    Args:
        table: By method and metric the mean; a missing one is NaN or left out.
        metrics: The metrics; those without a direction do not rank.

    Returns:
        By method the mean rank; None where it has no ranked value.

    Raises:
        ImportError: SciPy is not installed.
    """
    require("scipy", package="scipy", feature="ranking", extra="benchmark")
    from scipy.stats import rankdata

    ranks: dict[str, list[float]] = {method: [] for method in table}
    for metric in metrics:
        if metric.higher_is_better is None:
            continue
        sign = -1.0 if metric.higher_is_better else 1.0
        values = {m: sign * cells.get(metric.name, math.nan) for m, cells in table.items()}
        known = {method: value for method, value in values.items() if not math.isnan(value)}
        for method, rank in zip(known, rankdata(list(known.values())), strict=True):
            ranks[method].append(float(rank))
    return {method: sum(r) / len(r) if r else None for method, r in ranks.items()}


def pareto_front(
    cost: Sequence[float], quality: Sequence[float], *, higher_is_better: bool = True
) -> list[int]:
    """The points that no other one beats: none is as cheap and as good, and better in one of both.

    Args:
        cost: One per point, lower is better.
        quality: One per point.
        higher_is_better: The direction of quality. Default: True.

    Returns:
        Indices from the cheapest to the dearest. Equal points are all on the front; a point with
        NaN is not.
    """
    sign = -1.0 if higher_is_better else 1.0
    points = sorted(
        (c, sign * q, index)
        for index, (c, q) in enumerate(zip(cost, quality, strict=True))
        if not (math.isnan(c) or math.isnan(q))
    )
    front: list[int] = []
    last: tuple[float, float] | None = None
    for c, q, index in points:
        if last is None or q < last[1] or (c, q) == last:
            front.append(index)
            last = (c, q)
    return front


def _resampled_means(
    table: npt.NDArray[np.float64], n_resamples: int, generator: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Means of resamples (n_resamples,); NaN where one drew nothing but missing values."""
    S, N = table.shape
    step = max(1, _CHUNK // table.size)
    means = []
    for start in range(0, n_resamples, step):
        count = min(step, n_resamples - start)
        if S == 1:
            drawn = np.broadcast_to(table[0], (count, N))
        else:
            seeds = generator.integers(0, S, (count, S))
            drawn = example_means(np.moveaxis(table[seeds], 1, 0))
        examples = generator.integers(0, N, (count, N))
        taken = np.take_along_axis(drawn, examples, axis=1)
        means.append(example_means(taken.T))
    return np.concatenate(means)
