"""Rows worked out by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from captum_aml.benchmark.results import Cost, Failure, MethodRow
from captum_aml.benchmark.score import RunKey, Scored
from captum_aml.benchmark.summary import Tally, method_rows, removal_curves
from captum_aml.metrics import Metric

UP = Metric("up", "Up", True, "faithfulness", "More is better.")
DOWN = Metric("down", "Down", False, "faithfulness", "Less is better.")
NEITHER = Metric("neither", "Neither", None, "complexity", "As it is.")
NAN = math.nan
FACTS = {
    "ours": MethodRow("ours", "learned", settings={"n_steps": 3}, training="7 texts"),
    "good": MethodRow("good", "baseline"),
    "bad": MethodRow("bad", "baseline"),
    "random": MethodRow("random", "random"),
}
TOO = MethodRow("too", "learned")


def scored(**values: Sequence[Sequence[float]]) -> Scored:
    """By method its values by seed, the same for every metric."""
    made = Scored()
    for method, seeds in values.items():
        for seed, row in enumerate(seeds):
            table = {m.name: np.array(row, dtype=float) for m in (UP, DOWN, NEITHER)}
            made.values[RunKey(method, seed)] = table
    return made


#: Eight texts. "random" has two seeds, whose means are 1, ..., 8.
VALUES = scored(
    ours=[[2.0, 3, 4, 5, 6, 7, 8, 9]],
    good=[[1.5, 2.25, 3, 3.75, 4.5, 5.25, 6, 6.75]],
    bad=[[0.0] * 8],
    random=[[0.0, 1, 2, 3, 4, 5, 6, 7], [2.0, 3, 4, 5, 6, 7, 8, 9]],
)


class TestRows:
    def test_means_and_counts(self) -> None:
        rows = {row.method: row for row in method_rows(VALUES, [UP, NEITHER], FACTS, {})}
        assert list(rows) == list(FACTS)
        assert [row.cells["up"].mean for row in rows.values()] == [5.5, 4.125, 0.0, 4.5]
        assert {row.cells["up"].n for row in rows.values()} == {8}
        assert rows["random"].seeds == [0, 1]
        assert rows["ours"].settings == {"n_steps": 3}
        assert rows["ours"].training == "7 texts"
        for row in rows.values():
            cell = row.cells["neither"]
            assert cell.low <= cell.mean <= cell.high
            assert cell.comparison is None
        assert rows["bad"].cells["up"].low == rows["bad"].cells["up"].high == 0

    def test_missing_values(self) -> None:
        found = scored(ours=[[1.0, NAN, 3]], good=[[NAN] * 3], random=[[NAN, 2, 4], [NAN, 4, NAN]])
        facts = {name: FACTS[name] for name in ("ours", "good", "random")}
        ours, good, random = method_rows(found, [UP], facts, {})
        assert (ours.cells["up"].mean, ours.cells["up"].n) == (2.0, 2)
        assert good.cells == {}
        assert good.rank is None
        # Text 2 has the mean of its seeds, 3; text 3 one of two.
        assert (random.cells["up"].mean, random.cells["up"].n) == (3.5, 2)

    def test_ranks(self) -> None:
        rows = method_rows(VALUES, [UP, DOWN, NEITHER], FACTS, {})
        # "up" ranks ours, random, good, bad; "down" the other way round.
        assert [row.rank for row in rows] == [2.5, 2.5, 2.5, 2.5]
        assert [r.rank for r in method_rows(VALUES, [UP], FACTS, {})] == [1.0, 3.0, 4.0, 2.0]
        assert [r.rank for r in method_rows(VALUES, [DOWN], FACTS, {})] == [4.0, 2.0, 1.0, 3.0]


class TestComparison:
    def test_with_the_best_of_the_others_by_its_mean(self) -> None:
        """The best is "random" for more, "bad" for less."""
        ours, *others = method_rows(VALUES, [UP, DOWN, NEITHER], FACTS, {})
        up, down = ours.cells["up"].comparison, ours.cells["down"].comparison
        assert up is not None
        assert down is not None
        assert (up.baseline, up.difference, up.better) == ("random", 1.0, True)
        assert (down.baseline, down.difference, down.better) == ("bad", 5.5, False)
        assert ours.cells["neither"].comparison is None
        assert all(c.comparison is None for row in others for c in row.cells.values())

    def test_p_values_are_corrected_for_all_comparisons(self) -> None:
        """Eight differences of one sign: p = 2 / 2^8 in every one of four comparisons."""
        values = scored(
            ours=[[2.0, 3, 4, 5, 6, 7, 8, 9]],
            too=[[3.0, 4.5, 5, 6, 7, 8, 9, 10]],
            good=[[1.0, 1.5, 2, 2.5, 3, 3.5, 4, 4.5]],
        )
        facts = {
            "ours": FACTS["ours"],
            "too": TOO,
            "good": FACTS["good"],
        }
        for metrics in ([UP], [UP, DOWN], [UP, DOWN, NEITHER]):
            rows = method_rows(values, metrics, facts, {})
            made = [c.comparison for row in rows for c in row.cells.values() if c.comparison]
            assert len(made) == 2 * min(len(metrics), 2)
            for comparison in made:
                assert comparison.p_value == pytest.approx(len(made) * 2 / 2**8)

    def test_holm_steps_down(self) -> None:
        values = scored(
            ours=[[2.0, 3, 4, 5, 6, 7, 8, 9]],
            too=[[0.9, 1.6, 1.7, 2.9, 2.8, 3.6, 3.7, 4.4]],
            good=[[1.0, 1.5, 2, 2.5, 3, 3.5, 4, 4.5]],
        )
        facts = {
            "ours": FACTS["ours"],
            "too": TOO,
            "good": FACTS["good"],
        }
        ours, too, _ = method_rows(values, [UP], facts, {})
        differences = values.values[RunKey("too", 0)]["up"] - values.values[RunKey("good", 0)]["up"]
        # All 2^8 ways to give the differences signs.
        signs = np.array(list(itertools.product((-1, 1), repeat=8)))
        extreme = np.abs(signs @ differences) >= abs(differences.sum()) - 1e-12
        weak = float(extreme.mean())
        assert ours.cells["up"].comparison is not None
        assert too.cells["up"].comparison is not None
        assert ours.cells["up"].comparison.p_value == pytest.approx(2 * 2 / 2**8)
        assert too.cells["up"].comparison.p_value == pytest.approx(weak)

    def test_learned_methods_are_no_baselines(self) -> None:
        facts = {
            "ours": FACTS["ours"],
            "good": replace(TOO, method="good"),
            "bad": FACTS["bad"],
        }
        values = scored(ours=[[1.0, 2]], good=[[2.0, 3]], bad=[[0.0, 0]])
        ours, good, _ = method_rows(values, [UP], facts, {})
        for row in (ours, good):
            assert row.cells["up"].comparison is not None
            assert row.cells["up"].comparison.baseline == "bad"

    def test_only_texts_that_both_explain(self) -> None:
        values = scored(ours=[[1.0, 9, NAN]], good=[[3.0, NAN, 0]])
        facts = {"ours": FACTS["ours"], "good": FACTS["good"]}
        ours, _ = method_rows(values, [UP], facts, {})
        assert ours.cells["up"].mean == 5.0
        assert ours.cells["up"].comparison is not None
        assert ours.cells["up"].comparison.difference == -2.0
        assert not ours.cells["up"].comparison.better

    def test_no_text_that_both_explain(self) -> None:
        values = scored(ours=[[1.0, NAN]], good=[[NAN, 3.0]])
        facts = {"ours": FACTS["ours"], "good": FACTS["good"]}
        ours, _ = method_rows(values, [UP], facts, {})
        assert ours.cells["up"].comparison is None

    def test_no_baseline(self) -> None:
        (ours,) = method_rows(scored(ours=[[1.0, 2]]), [UP], {"ours": FACTS["ours"]}, {})
        assert ours.cells["up"].comparison is None


class TestTally:
    def test_means_over_what_was_explained(self) -> None:
        tally = Tally()
        tally.add(0, _record(0, forward=4.0, backward=2.0, seconds=1.0, peak=3.0))
        tally.add(1, _record(0, forward=8.0, backward=0.0, seconds=2.0, peak=5.0))
        tally.add(1, {"index": 7, "error": "it broke"})
        tally.add(0, _record(1, forward=0.0, backward=1.0, seconds=0.0, peak=None))
        assert tally.cost() == Cost(4.0, 1.0, 1.0, 5.0)
        assert tally.failures == [Failure(7, 1, "it broke")]

    def test_a_cost_that_nobody_knows_is_not_nothing(self) -> None:
        tally = Tally()
        tally.add(0, {"index": 7, "error": "it broke"})
        cost = tally.cost()
        assert math.isnan(cost.forward_passes)
        assert math.isnan(cost.backward_passes)
        assert math.isnan(cost.seconds)
        assert cost.peak_memory_mib is None

    def test_rows_have_it(self) -> None:
        tally = Tally()
        tally.add(0, {"index": 1, "error": "it broke"})
        tally.add(0, _record(0, forward=4.0, backward=2.0, seconds=1.0, peak=None))
        values = scored(ours=[[1.0, NAN]])
        (row,) = method_rows(values, [UP], {"ours": FACTS["ours"]}, {"ours": tally})
        assert row.cost == Cost(4.0, 2.0, 1.0, None)
        assert list(row.failures) == [Failure(1, 0, "it broke")]


def _record(
    index: int, *, forward: float, backward: float, seconds: float, peak: float | None
) -> dict[str, object]:
    return {
        "index": index,
        "scores": [1.0],
        "forward_passes": forward,
        "backward_passes": backward,
        "seconds": seconds,
        "peak_memory_mib": peak,
    }


def test_curves_are_means_over_texts_and_seeds() -> None:
    found = Scored()
    found.curves[RunKey("a", 0)] = np.array([[1.0, 0.5, 0.0], [0.5, 0.5, 0.5]])
    found.curves[RunKey("a", 1)] = np.array([[0.75, 0.5, 0.25], [NAN, NAN, NAN]])
    found.curves[RunKey("b", 0)] = np.full((2, 3), NAN)
    (curve,) = removal_curves(found, ["b", "a"])
    assert curve.method == "a"
    assert curve.shares == [0.0, 0.5, 1.0]
    assert curve.probabilities == [0.75, 0.5, 0.25]
