"""Value-learning equations against hand-computed numbers."""

import math

import pytest
import torch

from momalit.functional.value_learning import (
    advantage_weights,
    bootstrapped_target,
    conservative_gap,
    elite_moments,
    expectile_loss,
    squared_distance,
    value_weight,
)


def close(found, expected):
    torch.testing.assert_close(found, torch.tensor(expected, dtype=found.dtype))


def test_bootstrapped_target_after_a_termination():
    reward, terminated = torch.tensor([[1.0, 2.0]]), torch.tensor([[False, True]])
    close(bootstrapped_target(reward, terminated, torch.tensor([[10.0, 20.0]]), 0.9), [[10.0, 2.0]])
    each = bootstrapped_target(reward, terminated, torch.tensor([[[10.0, -10.0], [20.0, 30.0]]]), 0.9)
    close(each, [[[10.0, -8.0], [2.0, 2.0]]])


def test_expectile_loss():
    close(expectile_loss(torch.tensor([2.0, -2.0, 0.0]), 0.7), [0.7 * 4, 0.3 * 4, 0.0])
    close(expectile_loss(torch.tensor([3.0, -3.0]), 0.5), [4.5, 4.5])


def test_the_expectile_minimises_the_loss():
    # For 0 and 1, equally frequent: τ (1 - v) = (1 - τ) v, so v = τ.
    guess = torch.tensor(0.7, requires_grad=True)
    expectile_loss(torch.tensor([0.0, 1.0]) - guess, 0.7).sum().backward()
    assert guess.grad == pytest.approx(0.0, abs=1e-6)


def test_advantage_weights_are_bounded():
    found = advantage_weights(torch.tensor([0.0, 0.5, -1.0, 10.0, 1e6]), 3.0, 100.0)
    close(found, [1.0, math.exp(1.5), math.exp(-3.0), 100.0, 100.0])


def test_conservative_gap_over_all_discrete_actions():
    values = torch.tensor([[math.log(2.0)], [math.log(6.0)], [-torch.inf]])
    close(conservative_gap(values, torch.tensor([math.log(2.0)])), [math.log(4.0)])


def test_conservative_gap_from_samples():
    # Two actions sampled with densities 1/2 and 1/4: log((2 * 1/(1/2) + 3 * 1/(1/4)) / 2) = log 8.
    values, density = torch.tensor([[2.0], [3.0]]).log(), torch.tensor([[0.5], [0.25]]).log()
    close(conservative_gap(values, torch.tensor([1.0]), density), [math.log(8.0) - 1.0])


def test_importance_sampling_estimates_the_integral():
    # ∫ exp(a) da over [-1, 1] is e - 1/e.
    action = torch.rand(100_000, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = conservative_gap(action[:, None], torch.zeros(1), torch.tensor(0.5).log())
    assert float(found) == pytest.approx(math.log(math.e - 1 / math.e), abs=0.01)


def test_value_weight_counts_valid_steps_per_agent():
    values = torch.tensor([[[1.0, 10.0], [-3.0, 30.0], [99.0, 99.0]]], requires_grad=True)
    found = value_weight(values, torch.tensor([[True, True, False]]), 2.5)
    close(found, [2.5 / 2, 2.5 / 20])
    assert not found.requires_grad


def test_squared_distance_ignores_padding():
    action, mask = (
        torch.tensor([[[[1.0, 3.0], [2.0, 50.0]], [[9.0, 9.0], [9.0, 9.0]]]]),
        torch.tensor([[1.0, 1], [1, 0]]),
    )
    found = squared_distance(action, torch.zeros_like(action), torch.tensor([[True, False]]), mask)
    close(found, (1.0 + 9.0 + 4.0) / 3)


def test_elite_moments():
    actions = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]]).unsqueeze(1)
    mean, deviation = elite_moments(actions, torch.tensor([[5.0], [1.0], [9.0], [0.0]]), 2)
    close(mean, [[2.0, 3.0]])
    close(deviation, [[2.0, 2.0]])
