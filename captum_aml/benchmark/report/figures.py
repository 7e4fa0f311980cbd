"""Figures as SVG, to stand inside a page: faithfulness against cost, and removal curves.

Drawn with matplotlib's objects alone: neither pyplot nor a backend is chosen, the caller's style
has no say, and the same values give the same bytes. Text stays text. A figure has no ground of its
own; there is one version for light pages and one for dark ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise
from typing import TYPE_CHECKING, Literal, TypeAlias

from captum_aml.benchmark.report._canvas import (
    COLORS,
    FONT_SIZE,
    GRID,
    QUIET,
    Box,
    Mode,
    drawing,
    empty_figure,
    place_labels,
    shown,
    to_svg,
)
from captum_aml.benchmark.results import Curve, MethodRow, Role
from captum_aml.benchmark.statistics import pareto_front
from captum_aml.exceptions import InvalidInputError
from captum_aml.metrics import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Dash: TypeAlias = "Literal['solid'] | tuple[float, tuple[float, ...]]"

# Beyond this many, names cannot be told apart: the rest is drawn without.
_MOST_NAMED = 24
_ROLE_COLOR: dict[Role, int] = {"learned": 1, "baseline": 0, "random": 3}
_ROLE_MARKER: dict[Role, str] = {"learned": "o", "baseline": "s", "random": "D"}
_DASHES: Sequence[Dash] = ("solid", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
_RANDOM_DASH: Dash = (0, (3, 3))


def cost_figure(rows: Sequence[MethodRow], metric: Metric, *, mode: Mode = "light") -> str:
    """A metric with its interval against passes of the model, with the Pareto front.

    A pass is a text sent through the explained model or a masker, forward or backward; the axis is
    logarithmic, with a place of its own for methods that need none.

    Args:
        rows: The methods; those without a value or a cost are left out.
        metric: The metric, which has a direction.
        mode: The kind of page. Default: "light".

    Returns:
        An ``<svg>`` element; "" where no row has both.

    Raises:
        InvalidInputError: The metric has no direction.
        ImportError: Matplotlib is not installed.
    """
    if metric.higher_is_better is None:
        raise InvalidInputError(f"metric: {metric.name!r} has no better direction to compare")
    points = _points(rows, metric)
    if not points:
        return ""
    with drawing(mode):
        figure = empty_figure()
        axes = figure.add_subplot()
        _set_passes(axes, points, mode)
        front = _front(axes, points, metric.higher_is_better)
        for role, marker in _ROLE_MARKER.items():
            drawn = [point for point in points if point.role == role]
            if not drawn:
                continue
            color = COLORS[mode][_ROLE_COLOR[role]]
            axes.errorbar(
                [point.x for point in drawn],
                [point.mean for point in drawn],
                yerr=[
                    [point.mean - point.low for point in drawn],
                    [point.high - point.mean for point in drawn],
                ],
                linestyle="none",
                marker=marker,
                markersize=8 if role == "learned" else 5.5,
                markerfacecolor="none" if role == "random" else color,
                color=color,
                elinewidth=1.2,
                capsize=2.5,
                zorder=4 if role == "learned" else 3,
                label=role,
            )
        axes.plot(
            *zip(*front, strict=True),
            color=QUIET[mode],
            linewidth=1.2,
            alpha=0.75,
            zorder=2,
            label="Pareto front",
        )
        direction = "higher is better" if metric.higher_is_better else "lower is better"
        axes.set_xlabel("forward and backward passes per text (logarithmic)")
        axes.set_ylabel(f"{shown(metric.title)} ({direction})")
        axes.margins(y=0.12)
        figure.legend(loc="outside upper right", ncols=4, frameon=False)
        figure.draw_without_rendering()  # settles where everything stands
        _label(axes, points, front, mode)
        return to_svg(figure, prefix=f"cost-{mode}", label=f"{metric.title} against passes")


def removal_figure(
    curves: Sequence[Curve], rows: Sequence[MethodRow], *, mode: Mode = "light"
) -> str:
    """Probability of the explained class while tokens are taken away, most important first.

    Lines stand in the legend by their mean height, the lowest, that is the best, first.

    Args:
        curves: One per method.
        rows: The methods, for what each is to the comparison; without a row it is a baseline.
        mode: The kind of page. Default: "light".

    Returns:
        An ``<svg>`` element; "" without a curve.

    Raises:
        ImportError: Matplotlib is not installed.
    """
    roles = {row.method: row.role for row in rows}
    heights = [_height(curve) for curve in curves]
    order = [i for i in sorted(range(len(curves)), key=heights.__getitem__) if heights[i] > -1]
    if not order:
        return ""
    important = [i for i in order if roles.get(curves[i].method, "baseline") != "baseline"]
    named = [*important, *(i for i in order if i not in important)][:_MOST_NAMED]
    looks = cycle((color, dash) for dash in _DASHES for color in COLORS[mode])
    look = dict(zip(named, looks, strict=False))
    with drawing(mode):
        figure = empty_figure()
        axes = figure.add_subplot()
        entries = []
        for index in order:
            curve, role = curves[index], roles.get(curves[index].method, "baseline")
            percent = [100 * share for share in curve.shares]
            if index not in look:
                axes.plot(percent, curve.probabilities, color=GRID[mode], linewidth=0.8)
                continue
            color, dash = (QUIET[mode], _RANDOM_DASH) if role == "random" else look[index]
            (line,) = axes.plot(
                percent,
                curve.probabilities,
                color=color,
                linestyle=dash,
                linewidth=3.2 if role == "learned" else 1.5,
                zorder=4 if role == "learned" else 3,
            )
            entries.append((line, curve.method, role))
        axes.set_xlim(0, 100)
        axes.set_xlabel("tokens taken away, most important first (%)")
        axes.set_ylabel("probability of the explained class")
        rest = len(order) - len(named)
        legend = figure.legend(
            [line for line, _, _ in entries],
            # Matplotlib leaves out a name that starts with "_", so they are set below.
            ["method"] * len(entries),
            loc="outside right upper",
            title="lowest first" + (f"; {rest} more in grey" if rest else ""),
            handlelength=3.4,
            frameon=False,
        )
        for text, (_, method, role) in zip(legend.get_texts(), entries, strict=True):
            text.set_text(shown(method))
            text.set_fontweight("bold" if role == "learned" else "normal")
        return to_svg(figure, prefix=f"removal-{mode}", label="Removal curves")


@dataclass(frozen=True)
class _Point:
    """A method's place in the figure of cost."""

    method: str
    role: Role
    cost: float
    mean: float
    low: float
    high: float
    x: float


def _points(rows: Sequence[MethodRow], metric: Metric) -> list[_Point]:
    known = []
    for row in rows:
        cell = row.cells.get(metric.name)
        cost = row.cost.forward_passes + row.cost.backward_passes
        if cell is not None and math.isfinite(cell.mean) and math.isfinite(cost):
            known.append((row, cell, cost))
    # Methods without a pass stand left of the cheapest that has one, by half a decade or more.
    cheapest = min((cost for _, _, cost in known if cost > 0), default=1.0)
    free = 10 ** (math.floor(2 * math.log10(cheapest)) / 2 - 0.5)
    return [
        _Point(
            method=row.method,
            role=row.role,
            cost=cost,
            mean=cell.mean,
            low=cell.low if math.isfinite(cell.low) else cell.mean,
            high=cell.high if math.isfinite(cell.high) else cell.mean,
            x=cost if cost > 0 else free,
        )
        for row, cell, cost in known
    ]


def _set_passes(axes: Axes, points: Sequence[_Point], mode: Mode) -> None:
    """A logarithmic axis in plain numbers, with a place at the left for methods without a pass."""
    positive = [point.cost for point in points if point.cost > 0] or [1.0]
    left, right = min(point.x for point in points), max(positive)
    first, last = math.floor(math.log10(min(positive))), math.ceil(math.log10(right))
    decades = [10.0**power for power in range(first, last + 1, max(1, (last - first) // 6))]
    free = left if any(point.cost <= 0 for point in points) else 0.0
    ticks = [(tick, f"{tick:,.12g}") for tick in decades if tick > 1.2 * free]
    if free:
        ticks.insert(0, (free, "none"))
        axes.axvline(free * 10**0.25, color=GRID[mode], linewidth=1, linestyle=(0, (2, 2)))
    axes.set_xscale("log")
    axes.set_xlim(left / 1.5, max(right * 2.2, left * 10))
    axes.set_xticks([tick for tick, _ in ticks], [name for _, name in ticks])
    axes.set_xticks([], minor=True)


def _front(
    axes: Axes, points: Sequence[_Point], higher_is_better: bool
) -> list[tuple[float, float]]:
    """The best value for each budget: the corners of a staircase through the Pareto front."""
    best = [
        points[index]
        for index in pareto_front(
            [point.cost for point in points],
            [point.mean for point in points],
            higher_is_better=higher_is_better,
        )
    ]
    corners = [(best[0].x, best[0].mean)]
    for point in best[1:]:
        corners += [(point.x, corners[-1][1]), (point.x, point.mean)]
    return [*corners, (axes.get_xlim()[1], corners[-1][1])]


def _label(
    axes: Axes,
    points: Sequence[_Point],
    front: Sequence[tuple[float, float]],
    mode: Mode,
) -> None:
    """Names the points: all of them, or those that matter most and then the first ones."""

    def spot(x: float, y: float) -> tuple[float, float]:
        across, up = axes.transData.transform((x, y))
        return float(across), float(up)

    obstacles = []
    for point in points:
        (x, y), (_, low), (_, high) = (
            spot(point.x, v) for v in (point.mean, point.low, point.high)
        )
        obstacles += [Box.around(x, y, 5, 5), Box(x - 2, low, x + 2, high)]
    corners = [spot(x, y) for x, y in front]
    for (x, y), (to_x, to_y) in pairwise(corners):
        obstacles.append(Box(x - 1, min(y, to_y) - 1, to_x + 1, max(y, to_y) + 1))
    named = sorted(points, key=lambda point: point.role == "baseline")[:_MOST_NAMED]
    names = [shown(point.method) for point in named]
    places = place_labels(
        [spot(point.x, point.mean) for point in named],
        [(0.58 * FONT_SIZE * len(name), 1.15 * FONT_SIZE) for name in names],
        obstacles,
        Box(*axes.get_window_extent().extents),
    )
    guide = {"arrowstyle": "-", "color": QUIET[mode], "linewidth": 0.6}
    for point, name, place in zip(named, names, places, strict=True):
        axes.annotate(
            name,
            (point.x, point.mean),
            xytext=(place.x, place.y),
            textcoords="offset points",
            ha="center",
            va="center",
            fontweight="bold" if point.role == "learned" else "normal",
            arrowprops=guide if place.far else None,
            zorder=5,
        )


def _height(curve: Curve) -> float:
    """The mean of a curve over the shares, by trapezoids; NaN where there is none."""
    points = [
        (share, probability)
        for share, probability in zip(curve.shares, curve.probabilities, strict=True)
        if math.isfinite(probability)
    ]
    if not points:
        return math.nan
    if points[-1][0] <= points[0][0]:
        return points[0][1]
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))
    return area / (points[-1][0] - points[0][0])
