"""Masked statistics against hand-computed numbers."""

import math

import pytest
import torch

from momalit.functional.statistics import (
    evenly_spaced,
    explained_variance,
    global_moments,
    normalize,
    rank_correlation,
)

VALUES = torch.tensor([[1.0, 100.0], [3.0, 5.0]])
MASK = torch.tensor([[True, False], [True, True]])


def test_moments_ignore_masked_values():
    # 1, 3, 5: mean 3, mean of squares (1 + 9 + 25) / 3.
    mean, square, count = global_moments(VALUES, MASK)
    assert float(mean) == 3.0
    assert float(square) == pytest.approx(35 / 3)
    assert float(count) == 3


def test_moments_are_zero_if_all_values_are_masked():
    assert [float(x) for x in global_moments(VALUES, torch.zeros_like(MASK))] == [0.0, 0.0, 0.0]


def test_normalize_by_hand():
    # The standard deviation of 1, 3, 5 is sqrt(8 / 3).
    unit = 2 / math.sqrt(8 / 3)
    expected = torch.tensor([[-unit, 0.0], [0.0, unit]])
    torch.testing.assert_close(normalize(VALUES, MASK), expected)
    assert normalize(VALUES, MASK).dtype == torch.float32


def test_normalize_constant_and_fully_masked_values():
    assert normalize(torch.full((3, 2), 0.1), torch.ones(3, 2, dtype=torch.bool)).abs().max() < 1e-6
    assert normalize(VALUES, torch.zeros_like(MASK)).abs().max() == 0


def test_normalize_keeps_small_differences_of_large_values():
    values = torch.tensor([[10_000.0, 10_000.5, 10_001.0]])
    result = normalize(values, torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(result, torch.tensor([[-(1.5**0.5), 0.0, 1.5**0.5]]))


def test_explained_variance_by_hand():
    target = torch.tensor([[0.0, 2.0, 4.0, -77.0]])
    mask = torch.tensor([[True, True, True, False]])
    perfect = torch.tensor([[0.0, 2.0, 4.0, 1e3]])
    half = torch.tensor([[0.0, 1.0, 2.0, 1e3]])
    assert float(explained_variance(perfect, target, mask)) == 1.0
    # A constant offset does not reduce the explained variance.
    assert float(explained_variance(perfect + 5, target, mask)) == pytest.approx(1.0)
    # Var(target) = 8/3, Var(target - half) = Var(0, 1, 2) = 2/3: 1 - 1/4.
    assert float(explained_variance(half, target, mask)) == pytest.approx(0.75)
    assert float(explained_variance(torch.zeros_like(target), target, mask)) == pytest.approx(0.0)
    assert float(explained_variance(half, torch.ones_like(target), mask)) == 0.0


def test_rank_correlation_by_hand():
    a = torch.tensor([0.1, 0.5, 0.2, 9.0])
    assert float(rank_correlation(a, a**3 + 1)) == pytest.approx(1.0)
    assert float(rank_correlation(a, -a)) == pytest.approx(-1.0)
    # Ranks 0 2 1 3 against 2 0 1 3: d = 2, 2, 0, 0; 1 - 6 * 8 / (4 * 15).
    assert float(rank_correlation(a, torch.tensor([3.0, 1.0, 2.0, 4.0]))) == pytest.approx(1 - 48 / 60)


def test_rank_correlation_is_the_correlation_of_ranks():
    torch.manual_seed(0)
    a = torch.randn(500)
    b = a + torch.randn(500)
    ranks = torch.stack([a.argsort().argsort(), b.argsort().argsort()]).double()
    assert float(rank_correlation(a, b)) == pytest.approx(float(torch.corrcoef(ranks)[0, 1]), abs=1e-9)


def test_evenly_spaced_indices_of_many_items_are_indices():
    found = evenly_spaced(20_000_000, 20_000)
    assert (int(found[0]), int(found[-1])) == (0, 19_999_999)
