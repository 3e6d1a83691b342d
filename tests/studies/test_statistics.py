"""Statistics of few runs, against numbers worked out by hand."""

import numpy as np
import pytest

from momalit.studies.statistics import (
    bootstrap_interval,
    improvement_interval,
    interquartile_mean,
    pooled_interquartile_mean,
    pooled_mean,
    probability_of_improvement,
)


def test_interquartile_mean_leaves_out_a_quarter_on_either_side():
    assert interquartile_mean([100, 1, 2, -100]) == 1.5
    assert interquartile_mean([0, 0, 3, 4, 5, 6, 99, 99]) == 4.5
    # Five values: a quarter is 1.25 of them, so the second and the fourth count for three quarters.
    assert interquartile_mean([0, 1, 2, 4, 1000]) == pytest.approx((0.75 * 1 + 2 + 0.75 * 4) / 2.5)
    # Three values: the outer ones count for a quarter.
    assert interquartile_mean([0, 1, 8]) == pytest.approx((0.25 * 0 + 1 + 0.25 * 8) / 1.5)
    assert interquartile_mean([3, 5]) == 4
    assert interquartile_mean([7]) == 7
    assert interquartile_mean([[3, 5], [1, 2]]).tolist() == [4, 1.5]


def test_pooled_statistics_count_every_run_alike():
    groups = [np.array([0.0, 2.0]), np.array([4.0])]
    assert pooled_mean(groups) == 2
    assert pooled_interquartile_mean(groups) == pytest.approx((0.25 * 0 + 2 + 0.25 * 4) / 1.5)


def test_probability_of_improvement_counts_pairs_and_ties():
    # First group: 3 > 1, 3 > 2, 2 > 1, 2 = 2: 3.5 of 4. Second group: never.
    assert probability_of_improvement([[3, 2], [0]], [[1, 2], [1]]) == pytest.approx((3.5 / 4 + 0) / 2)
    assert probability_of_improvement([[1, 1]], [[1]]) == 0.5


def test_intervals_are_the_same_again_and_know_their_bounds():
    values = [1.0, 2.0, 3.0, 10.0]
    low, high = bootstrap_interval([values])
    assert (low, high) == bootstrap_interval([values])
    many = [float(i * i) for i in range(20)]
    assert bootstrap_interval([many]) != bootstrap_interval([many], seed=1)
    assert 1 <= low < np.mean(values) < high <= 10
    assert bootstrap_interval([[5.0]]) == (5, 5)
    assert bootstrap_interval([[5.0, 5.0], [5.0]]) == (5, 5)


def test_strata_are_resampled_apart():
    # Between groups there is a gulf, within them nothing: pooled blindly the mean would vary, stratified it cannot.
    assert bootstrap_interval([[0.0] * 5, [100.0] * 5]) == (50, 50)
    assert improvement_interval([[2.0, 3.0], [9.0]], [[1.0], [10.0, 11.0]]) == (0.5, 0.5)


def test_the_interval_of_a_mean_is_that_of_theory():
    values = np.random.default_rng(0).normal(size=400)
    low, high = bootstrap_interval([values])
    error = 1.96 * values.std() / 20
    assert (low, high) == (
        pytest.approx(values.mean() - error, abs=0.01),
        pytest.approx(values.mean() + error, abs=0.01),
    )
