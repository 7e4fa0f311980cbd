"""Intervals, tests, ranks and fronts against values worked by hand and against SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from captum_aml.benchmark.statistics import (
    bootstrap_interval,
    example_means,
    holm,
    mean_ranks,
    paired_p_value,
    pareto_front,
)
from captum_aml.exceptions import InvalidInputError
from captum_aml.metrics import Metric

NAN = math.nan


def metric(name: str, higher_is_better: bool | None) -> Metric:
    return Metric(name, name.title(), higher_is_better, "faithfulness", "")


class TestBootstrapInterval:
    @pytest.mark.parametrize("confidence", [0.9, 0.95])
    def test_one_seed_is_scipys_percentile_bootstrap(self, confidence: float) -> None:
        values = np.random.default_rng(0).gamma(2.0, size=57)
        expected = stats.bootstrap(
            (values,),
            np.mean,
            n_resamples=999,
            confidence_level=confidence,
            method="percentile",
            rng=np.random.default_rng(5),
        ).confidence_interval
        found = bootstrap_interval(values[None], n_resamples=999, confidence=confidence, seed=5)
        # The same resamples; only the order of additions differs.
        assert found == pytest.approx((values.mean(), *expected), abs=1e-12)

    def test_a_vector_is_one_seed(self) -> None:
        values = [0.1, 0.5, 0.2]
        assert bootstrap_interval(values) == bootstrap_interval([values])

    def test_constant_values_have_no_spread(self) -> None:
        assert bootstrap_interval(np.full((3, 20), 0.25)) == (0.25, 0.25, 0.25)

    def test_seeds_of_one_value_change_nothing_in_the_mean_and_little_in_the_interval(self) -> None:
        values = np.random.default_rng(0).normal(size=100)
        one = bootstrap_interval(values)
        three = bootstrap_interval(np.stack([values] * 3))
        assert three[0] == pytest.approx(one[0], abs=1e-12)
        # Other resamples of the same distribution: their ends scatter by about 0.05 sd / sqrt(N).
        assert three[1] == pytest.approx(one[1], abs=0.02)
        assert three[2] == pytest.approx(one[2], abs=0.02)

    def test_what_seeds_shift_in_all_examples_widens_it(self) -> None:
        # Three seeds at -1, 0, 1 and nothing else: a resample's mean is that of three draws, so
        # its extremes have probability 1/27 each, more than a tail of 2.5 %.
        values = np.repeat([[-1.0], [0.0], [1.0]], 50, axis=1)
        assert bootstrap_interval(values) == (0.0, -1.0, 1.0)

    def test_covers_the_truth_about_as_often_as_it_says(self) -> None:
        generator = np.random.default_rng(1)
        trials = []
        for seed in range(300):
            trials.append(bootstrap_interval(generator.normal(size=80), n_resamples=400, seed=seed))
        covered = sum(low <= 0 <= high for _, low, high in trials) / len(trials)
        # A binomial share at 0.95 has a standard error of 0.013; percentiles run a little low.
        assert 0.90 < covered < 0.985

    def test_each_example_counts_once_whatever_seeds_it_lacks(self) -> None:
        values = [[1.0, 0.0, NAN], [3.0, NAN, NAN]]
        assert bootstrap_interval(values)[0] == 1.0  # of 2 and 0
        assert example_means(values) == pytest.approx([2.0, 0.0, NAN], nan_ok=True)

    def test_missing_examples_do_not_count(self) -> None:
        values = [0.3, 0.9, 0.1, 0.4]
        assert bootstrap_interval([NAN, *values, NAN]) == bootstrap_interval(values)

    def test_a_seed_without_any_value_does_not_count(self) -> None:
        values = [0.3, 0.9, 0.1, 0.4]
        assert bootstrap_interval([values, [NAN] * 4]) == bootstrap_interval(values)

    @pytest.mark.parametrize("values", [[], [[]], [NAN, NAN], [[NAN], [NAN]]])
    def test_nothing_known(self, values: object) -> None:
        assert all(math.isnan(number) for number in bootstrap_interval(values))

    def test_one_example_has_no_interval(self) -> None:
        assert bootstrap_interval([[0.4, NAN]]) == pytest.approx((0.4, NAN, NAN), nan_ok=True)

    def test_an_infinite_value_has_no_interval(self) -> None:
        found = bootstrap_interval([0.5, -math.inf])
        assert found == pytest.approx((-math.inf, NAN, NAN), nan_ok=True)

    def test_is_repeatable_and_leaves_the_global_state_alone(self) -> None:
        values = np.random.default_rng(0).normal(size=(3, 40))
        before = np.random.get_state()[1].tolist()
        first = bootstrap_interval(values, seed=3)
        assert first == bootstrap_interval(values, seed=3)
        assert first != bootstrap_interval(values, seed=4)
        assert np.random.get_state()[1].tolist() == before

    def test_pieces_give_what_the_whole_gives(self, monkeypatch: pytest.MonkeyPatch) -> None:
        values = np.random.default_rng(0).normal(size=33)
        whole = bootstrap_interval(values, n_resamples=100)
        monkeypatch.setattr("captum_aml.benchmark.statistics._CHUNK", 7 * 33)
        assert bootstrap_interval(values, n_resamples=100) == whole

    @given(st.lists(st.floats(-10, 10) | st.just(NAN), min_size=2, max_size=12))
    def test_lies_within_the_values_around_the_mean(self, values: list[float]) -> None:
        mean, low, high = bootstrap_interval(values, n_resamples=50)
        known = [value for value in values if not math.isnan(value)]
        if len(known) > 1:
            assert min(known) - 1e-9 <= low <= high <= max(known) + 1e-9
            assert mean == pytest.approx(sum(known) / len(known), abs=1e-9)

    def test_says_what_is_wrong(self) -> None:
        with pytest.raises(InvalidInputError, match=r"shape \(S, N\)"):
            bootstrap_interval(np.zeros((2, 2, 2)))
        with pytest.raises(InvalidInputError, match="confidence"):
            bootstrap_interval([1.0, 2.0], confidence=1.0)
        with pytest.raises(InvalidInputError, match="n_resamples"):
            bootstrap_interval([1.0, 2.0], n_resamples=0)

    def test_is_an_interval(self) -> None:
        assert len(bootstrap_interval([1.0, 2.0])) == 3


class TestPairedPValue:
    def test_all_on_one_side(self) -> None:
        # Six distinct positive differences: of 2^6 signs two are as extreme.
        first = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
        assert paired_p_value(first, [0.0] * 6) == pytest.approx(2 / 64)
        assert paired_p_value([0.0] * 6, first) == pytest.approx(2 / 64)

    def test_a_case_counted_by_hand(self) -> None:
        # Differences 1, 2, 3, -4 sum to 2. Of 16 sign patterns only 1 + 4 - 2 - 3 and its opposite
        # sum to less in absolute value, so p = 14 / 16.
        assert paired_p_value([1, 2, 3, -4], [0, 0, 0, 0]) == pytest.approx(14 / 16)

    def test_nothing_differs(self) -> None:
        assert paired_p_value([0.3, 0.4, NAN], [0.3, 0.4, 0.5]) == 1.0

    def test_only_common_examples_count(self) -> None:
        first, second = [1.0, 2, 3, 4, 5, 6], [0.5] * 6
        whole = paired_p_value(first, second)
        assert paired_p_value([*first, NAN, -9], [*second, 7, NAN]) == whole

    def test_no_common_example(self) -> None:
        assert math.isnan(paired_p_value([NAN, 1.0], [1.0, NAN]))

    def test_ties_change_nothing(self) -> None:
        first = np.linspace(-0.4, 1, 12)
        without = paired_p_value(first, np.zeros(12))
        assert paired_p_value(np.append(first, np.zeros(60)), np.zeros(72)) == without

    def test_infinite_differences_cannot_be_tested(self) -> None:
        assert math.isnan(paired_p_value([1, 2, math.inf], [0] * 3))
        assert paired_p_value([math.inf] * 2, [math.inf] * 2) == 1.0

    def test_it_asks_about_the_mean_whatever_the_ranks_say(self) -> None:
        # 180 small losses and 20 large wins: the ranks are against the first method, and its mean
        # is ahead. The exact distribution is close to normal with variance sum(d^2).
        differences = np.array([-0.02] * 180 + [0.6] * 20)
        z = differences.sum() / math.sqrt((differences**2).sum())
        expected = 2 * stats.norm.sf(abs(z))
        # Three standard errors of a share among 9,999 draws, and the normal curve's own error.
        assert paired_p_value(differences, np.zeros(200)) == pytest.approx(expected, abs=5e-3)

    def test_many_examples_agree_with_the_t_test(self) -> None:
        generator = np.random.default_rng(3)
        first, second = generator.normal([[0.15], [0.0]], 1.0, size=(2, 150))
        expected = stats.ttest_rel(first, second).pvalue
        assert paired_p_value(first, second) == pytest.approx(expected, abs=0.02)

    def test_other_shapes_are_refused(self) -> None:
        with pytest.raises(InvalidInputError, match="one value each per example"):
            paired_p_value([1.0, 2.0], [1.0])


class TestHolm:
    def test_worked_example(self) -> None:
        # In order 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04, and the last
        # may not be below the one before.
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])

    def test_missing_ones_do_not_count(self) -> None:
        found = holm([0.01, NAN, 0.04, NAN])
        assert found == pytest.approx([0.02, NAN, 0.04, NAN], nan_ok=True)

    def test_ends_at_one_and_takes_none(self) -> None:
        assert holm([0.6, 0.7]) == [1.0, 1.0]
        assert holm([]) == []

    def test_a_single_one_stays(self) -> None:
        assert holm([0.03]) == [0.03]

    def test_refuses_what_is_no_probability(self) -> None:
        with pytest.raises(InvalidInputError, match=r"\[0, 1\]"):
            holm([1.2])

    @given(st.lists(st.floats(0, 1), max_size=8))
    def test_between_the_value_and_bonferroni_in_the_same_order(self, ps: list[float]) -> None:
        corrected = holm(ps)
        assert all(p <= c <= min(1.0, p * len(ps)) for p, c in zip(ps, corrected, strict=True))
        order = sorted(range(len(ps)), key=ps.__getitem__)
        assert [corrected[i] for i in order] == sorted(corrected)


class TestMeanRanks:
    def test_directions_and_ties(self) -> None:
        table = {
            "a": {"up": 0.9, "down": 0.5, "neither": 3.0},
            "b": {"up": 0.7, "down": 0.1, "neither": 1.0},
            "c": {"up": 0.7, "down": 0.8, "neither": 2.0},
        }
        metrics = [metric("up", True), metric("down", False), metric("neither", None)]
        # up: a 1, b and c share 2 and 3; down: b 1, a 2, c 3.
        assert mean_ranks(table, metrics) == {"a": 1.5, "b": 1.75, "c": 2.75}

    def test_missing_values_do_not_rank(self) -> None:
        table = {"a": {"up": NAN, "down": 1.0}, "b": {"up": 0.7}, "c": {"up": 0.9}, "d": {}}
        metrics = [metric("up", True), metric("down", False)]
        assert mean_ranks(table, metrics) == {"a": 1.0, "b": 2.0, "c": 1.0, "d": None}

    def test_infinite_values_rank(self) -> None:
        table = {"a": {"down": -math.inf}, "b": {"down": 0.0}}
        assert mean_ranks(table, [metric("down", False)]) == {"a": 1.0, "b": 2.0}


class TestParetoFront:
    def test_by_hand(self) -> None:
        cost = [5, 1, 3, 3, 4, 0]
        quality = [0.9, 0.5, 0.7, 0.6, 0.7, 0.1]
        # (3, 0.6) and (4, 0.7) are beaten by (3, 0.7).
        assert pareto_front(cost, quality) == [5, 1, 2, 0]

    def test_lower_is_better(self) -> None:
        assert pareto_front([1, 2, 3], [0.5, 0.6, 0.2], higher_is_better=False) == [0, 2]

    def test_equal_points_are_all_on_it(self) -> None:
        assert pareto_front([1, 1, 2], [0.5, 0.5, 0.5]) == [0, 1]

    def test_nan_is_not_on_it(self) -> None:
        assert pareto_front([NAN, 1, 0], [0.9, 0.5, NAN]) == [1]
        assert pareto_front([], []) == []

    @given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=10))
    def test_is_what_the_definition_says(self, points: list[tuple[int, int]]) -> None:
        def beaten(mine: tuple[int, int]) -> bool:
            return any(c <= mine[0] and q >= mine[1] and (c, q) != mine for c, q in points)

        front = pareto_front([c for c, _ in points], [q for _, q in points])
        assert sorted(front) == [i for i, point in enumerate(points) if not beaten(point)]
