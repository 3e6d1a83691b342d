"""Statistics of few runs, compared with values computed by hand."""

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


def test_interquartile_mean_drops_a_quarter_on_each_side():
    assert interquartile_mean([100, 1, 2, -100]) == 1.5
    assert interquartile_mean([0, 0, 3, 4, 5, 6, 99, 99]) == 4.5
    # Five values: a quarter is 1.25 of them, so the second and the fourth count for three quarters.
    assert interquartile_mean([0, 1, 2, 4, 1000]) == pytest.approx((0.75 * 1 + 2 + 0.75 * 4) / 2.5)
    # Three values: the outer ones count for a quarter.
    assert interquartile_mean([0, 1, 8]) == pytest.approx((0.25 * 0 + 1 + 0.25 * 8) / 1.5)
    assert interquartile_mean([3, 5]) == 4
    assert interquartile_mean([7]) == 7
    assert interquartile_mean([[3, 5], [1, 2]]).tolist() == [4, 1.5]


def test_pooled_statistics_weight_all_runs_equally():
    groups = [np.array([0.0, 2.0]), np.array([4.0])]
    assert pooled_mean(groups) == 2
    assert pooled_interquartile_mean(groups) == pytest.approx((0.25 * 0 + 2 + 0.25 * 4) / 1.5)


def test_probability_of_improvement_counts_pairs_and_ties():
    # In the first group 3 > 1, 3 > 2, 2 > 1 and 2 = 2, which is 3.5 of 4. In the second group it is 0.
    assert probability_of_improvement([[3, 2], [0]], [[1, 2], [1]]) == pytest.approx((3.5 / 4 + 0) / 2)
    assert probability_of_improvement([[1, 1]], [[1]]) == 0.5


def test_intervals_are_reproducible_and_within_the_range_of_the_values():
    values = [1.0, 2.0, 3.0, 10.0]
    low, high = bootstrap_interval([values])
    assert (low, high) == bootstrap_interval([values])
    many = [float(i * i) for i in range(20)]
    assert bootstrap_interval([many]) != bootstrap_interval([many], seed=1)
    assert 1 <= low < np.mean(values) < high <= 10
    assert bootstrap_interval([[5.0]]) == (5, 5)
    assert bootstrap_interval([[5.0, 5.0], [5.0]]) == (5, 5)


def test_strata_are_resampled_separately():
    # The values differ between groups but not within them, so only resampling across groups would change the mean.
    assert bootstrap_interval([[0.0] * 5, [100.0] * 5]) == (50, 50)
    assert improvement_interval([[2.0, 3.0], [9.0]], [[1.0], [10.0, 11.0]]) == (0.5, 0.5)


def test_the_interval_of_a_mean_is_close_to_the_normal_approximation():
    values = np.random.default_rng(0).normal(size=400)
    low, high = bootstrap_interval([values])
    error = 1.96 * values.std() / 20
    assert (low, high) == (
        pytest.approx(values.mean() - error, abs=0.01),
        pytest.approx(values.mean() + error, abs=0.01),
    )
