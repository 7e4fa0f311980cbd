"""The figures: what they draw, that nothing in them can do harm, that they repeat."""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import replace
from xml.dom import minidom

import matplotlib
import pytest

from captum_aml.benchmark.report._canvas import COLORS, Box, place_labels
from captum_aml.benchmark.report.figures import Mode, cost_figure, removal_figure
from captum_aml.benchmark.results import (
    Cell,
    Cost,
    Curve,
    MethodRow,
    Role,
)
from captum_aml.exceptions import InvalidInputError
from captum_aml.metrics import Metric
from captum_aml.visualization.palette import PALETTE
from tests._helpers.benchmark_results import realistic

MEASURE = Metric("m", "A metric", True, "faithfulness", "")
EVIL = "</text></svg><script>alert(1)</script>"


def row(
    method: str, role: Role = "baseline", *, mean: float = 0.5, passes: float = 1.0
) -> MethodRow:
    cell = Cell(mean, mean - 0.1, mean + 0.1, 10)
    return MethodRow(method, role, {"m": cell}, Cost(passes, 0.0, 0.1, None), (0,))


def texts(svg: str) -> list[str]:
    elements = minidom.parseString(svg).getElementsByTagName("text")
    return ["".join(node.data for node in e.childNodes) for e in elements]


def curves(*methods: str) -> list[Curve]:
    return [
        Curve(name, (0.0, 0.5, 1.0), (0.9, 0.1 * (i + 1), 0.1)) for i, name in enumerate(methods)
    ]


class TestCostFigure:
    def test_every_method_is_named(self) -> None:
        results = realistic()
        shown = texts(cost_figure(results.rows, results.metrics[0]))
        assert {row.method for row in results.rows} <= set(shown)
        assert {"none", "learned", "baseline", "random", "Pareto front"} <= set(shown)

    def test_says_which_direction_is_better(self) -> None:
        assert "A metric (higher is better)" in texts(cost_figure([row("a")], MEASURE))
        lower = replace(MEASURE, higher_is_better=False)
        assert "A metric (lower is better)" in texts(cost_figure([row("a")], lower))

    def test_no_place_for_free_methods_where_there_are_none(self) -> None:
        assert "none" not in texts(cost_figure([row("a", passes=3.0)], MEASURE))

    def test_all_methods_free(self) -> None:
        assert "b" in texts(cost_figure([row("a", passes=0.0), row("b", passes=0.0)], MEASURE))

    @pytest.mark.parametrize("passes", [1e-3, 0.4, 1.0, 1e7])
    def test_any_cost_can_be_shown(self, passes: float) -> None:
        shown = texts(cost_figure([row("a", passes=passes), row("free", passes=0.0)], MEASURE))
        assert {"a", "free", "none"} <= set(shown)

    def test_rows_without_a_value_are_left_out(self) -> None:
        empty = replace(row("empty"), cells={})
        nan = row("nan", mean=math.nan)
        cost = row("cost", passes=math.nan)
        shown = texts(cost_figure([row("a"), empty, nan, cost], MEASURE))
        assert "a" in shown
        assert not {"empty", "nan", "cost"} & set(shown)
        assert cost_figure([empty, nan, cost], MEASURE) == ""

    def test_a_mean_without_an_interval(self) -> None:
        alone = replace(row("a"), cells={"m": Cell(0.5, math.nan, math.nan, 1)})
        assert "a" in texts(cost_figure([alone], MEASURE))

    def test_hundreds_of_methods(self) -> None:
        rows = [row(f"method-{i}", mean=i / 300, passes=i) for i in range(300)]
        shown = texts(cost_figure([*rows, row("ours", "learned")], MEASURE))
        assert "ours" in shown
        assert sum(name.startswith("method-") for name in shown) == 23

    def test_needs_a_direction(self) -> None:
        with pytest.raises(InvalidInputError, match="no better direction"):
            cost_figure([row("a")], replace(MEASURE, higher_is_better=None))


class TestRemovalFigure:
    def test_the_lowest_curve_comes_first(self) -> None:
        svg = removal_figure(curves("low", "middle", "high")[::-1], [])
        shown = texts(svg)
        assert [name for name in shown if name in ("low", "middle", "high")] == [
            "low",
            "middle",
            "high",
        ]

    def test_learned_lines_are_thick_and_random_is_dashed(self) -> None:
        def drawn(role: Role) -> set[str]:
            svg = removal_figure(curves("a"), [row("a", role)])
            styles = re.findall(r'style="fill: none; ([^"]*)"', svg)
            return {style for style in styles if "stroke-width: 3.2" in style or "1.5" in style}

        assert all("stroke-width: 3.2" in style for style in drawn("learned"))
        assert all("stroke-dasharray" in style for style in drawn("random"))
        assert not any("stroke-dasharray" in style for style in drawn("baseline"))
        assert drawn("learned")
        assert drawn("random")
        assert drawn("baseline")

    def test_no_curves(self) -> None:
        assert removal_figure([], []) == ""
        assert removal_figure([Curve("a", (0.0, 1.0), (math.nan, math.nan))], []) == ""

    def test_beyond_two_dozen_the_rest_is_grey_and_counted(self) -> None:
        names = [f"method-{i}" for i in range(100)]
        shown = texts(removal_figure(curves(*names), [row("method-99", "learned")]))
        assert "method-99" in shown
        assert "lowest first; 76 more in grey" in shown


@pytest.mark.parametrize("draw", ["cost", "removal"])
class TestAnyFigure:
    def draw(self, which: str, *names: str, mode: Mode = "light") -> str:
        rows = [row(name, passes=i) for i, name in enumerate(names)]
        if which == "cost":
            return cost_figure(rows, MEASURE, mode=mode)
        return removal_figure(curves(*names), rows, mode=mode)

    @pytest.mark.parametrize(
        "name",
        [
            "$x^2$",
            "$",
            r"$\frac{1}",
            "_hidden",
            "a_b",
            "a & b < c",
            "--> <!--",
            "日本語",
            "a%b",
            "",
        ],
    )
    def test_names_are_shown_as_they_are(self, draw: str, name: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            svg = self.draw(draw, name, "other")
        assert not name or name in texts(svg)

    def test_a_script_stays_text(self, draw: str) -> None:
        svg = self.draw(draw, EVIL[:29], "other")
        assert "<script" not in svg
        assert not minidom.parseString(svg).getElementsByTagName("script")
        assert EVIL[:29] in texts(svg)

    def test_long_names_are_cut_and_stay_on_one_line(self, draw: str) -> None:
        shown = texts(self.draw(draw, "a\nb\t" + "c" * 500, "bell\x07"))
        assert "a b " + "c" * 25 + "…" in shown
        assert "bell␇" in shown

    def test_is_repeatable_whatever_the_callers_style(self, draw: str) -> None:
        first = self.draw(draw, "a", "b")
        settings = {"font.size": 30, "axes.facecolor": "red", "text.usetex": True}
        with matplotlib.rc_context(settings):
            before = dict(matplotlib.rcParams)
            assert self.draw(draw, "a", "b") == first
            assert dict(matplotlib.rcParams) == before

    def test_loads_nothing_and_carries_no_date(self, draw: str) -> None:
        svg = self.draw(draw, "a", "b")
        without_names = svg.replace("http://www.w3.org/2000/svg", "")
        without_names = without_names.replace("http://www.w3.org/1999/xlink", "")
        assert not re.search(r"(?i)https?:|@import|<image|metadata|\bdate\b", without_names)
        assert svg.startswith("<svg ")

    def test_ids_of_two_figures_differ_and_all_references_hold(self, draw: str) -> None:
        light, dark = self.draw(draw, "a", "b"), self.draw(draw, "a", "b", mode="dark")
        ids = [re.findall(r'\bid="([^"]+)"', svg) for svg in (light, dark)]
        assert not set(ids[0]) & set(ids[1])
        for svg, known in zip((light, dark), ids, strict=True):
            assert set(re.findall(r'(?:href="|url\()#([\w-]+)', svg)) == set(known)

    def test_has_no_ground(self, draw: str) -> None:
        svg = self.draw(draw, "a", "b")
        assert "#ffffff" not in svg
        assert "#000000" not in svg


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_lines_stand_out_from_the_page(mode: Mode) -> None:
    # WCAG 2 asks for a contrast of 3 for what is not text.
    def luminance(color: tuple[int, ...]) -> float:
        linear = [
            c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4
            for c in color
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    ground = luminance(PALETTE[mode]["ground"])
    for color in COLORS[mode]:
        line = luminance(tuple(bytes.fromhex(color[1:])))
        low, high = sorted((ground, line))
        assert (high + 0.05) / (low + 0.05) >= 3


class TestPlacing:
    FRAME = Box(0, 0, 200, 100)

    def test_stands_to_the_right_where_nothing_is_in_the_way(self) -> None:
        (place,) = place_labels([(50, 50)], [(20, 10)], [], self.FRAME)
        assert place == (8 + 10, 0, False)

    def test_evades_what_stands_there(self) -> None:
        obstacle = Box(55, 40, 100, 60)
        (place,) = place_labels([(50, 50)], [(20, 10)], [obstacle], self.FRAME)
        assert place == (-18, pytest.approx(0), False)

    def test_stays_within_the_frame(self) -> None:
        (place,) = place_labels([(198, 50)], [(40, 10)], [], self.FRAME)
        assert place.x == -28

    def test_labels_evade_one_another(self) -> None:
        points = [(50, 50)] * 4
        places = place_labels(points, [(30, 10)] * 4, [], self.FRAME)
        boxes = [Box(p.x - 15, p.y - 5, p.x + 15, p.y + 5) for p in places]
        overlaps = [a.overlap(b) for i, a in enumerate(boxes) for b in boxes[:i]]
        assert overlaps == [0.0] * 6

    def test_far_ones_get_a_guide(self) -> None:
        blocked = Box(0, 30, 200, 70)
        (place,) = place_labels([(100, 50)], [(20, 10)], [blocked], self.FRAME)
        assert place.far

    def test_overlap_by_hand(self) -> None:
        assert Box(0, 0, 4, 4).overlap(Box(3, 2, 9, 9)) == 2.0
        assert Box(0, 0, 1, 1).overlap(Box(2, 0, 3, 1)) == 0.0
