"""Ensemble uncertainty and the reward penalty, against hand-computed numbers and torch.cov."""

import pytest
import torch

from momalit.functional.uncertainty import (
    ensemble_covariance_norm,
    ensemble_reward_variance,
    max_predicted_variance,
    measures,
    penalty,
)


def test_covariance_norm_by_hand():
    # Two members that differ by (6, 8): centred ±(3, 4), covariance (1 / (2 - 1)) * 2 * (3, 4)(3, 4)^T = 2 * [[9, 12],
    # [12, 16]], whose Frobenius norm is 2 * 25.
    mean = torch.tensor([[[1.0, 1.0]], [[7.0, 9.0]]])
    assert ensemble_covariance_norm(mean).tolist() == [50.0]


@pytest.mark.parametrize(("members", "size"), [(5, 3), (3, 40), (2, 1)])
def test_covariance_norm_equals_torch_cov(members, size):
    torch.manual_seed(0)
    mean = torch.randn(members, 20, size)
    result = ensemble_covariance_norm(mean)
    for b in range(20):
        covariance = torch.cov(mean[:, b].T).reshape(size, size)
        assert float(result[b]) == pytest.approx(float(covariance.norm()), rel=1e-4)


def test_uncertainty_is_zero_if_members_agree():
    mean = torch.randn(1, 4, 3).expand(5, -1, -1)
    torch.testing.assert_close(ensemble_covariance_norm(mean), torch.zeros(4))
    torch.testing.assert_close(ensemble_reward_variance(mean), torch.zeros(4))


def test_a_single_member_cannot_disagree():
    mean = torch.randn(1, 4, 3)
    assert ensemble_covariance_norm(mean).tolist() == [0.0] * 4
    assert ensemble_reward_variance(mean).tolist() == [0.0] * 4


def test_reward_variance_uses_the_last_dimension():
    mean = torch.zeros(3, 1, 2)
    mean[:, 0, 1] = torch.tensor([1.0, 2.0, 3.0])
    mean[:, 0, 0] = torch.tensor([100.0, -100.0, 0.0])
    assert ensemble_reward_variance(mean).tolist() == [1.0]  # (1 + 0 + 1) / (3 - 1)


def test_max_predicted_variance_by_hand():
    variance = torch.tensor([[[3.0, 4.0]], [[1.0, 1.0]]])
    torch.testing.assert_close(max_predicted_variance(variance.log()), torch.tensor([5.0]))


def test_measures_are_stacked():
    mean, log_variance = torch.randn(4, 6, 3), torch.randn(4, 6, 3)
    stacked = measures(mean, log_variance)
    assert torch.equal(stacked[0], ensemble_covariance_norm(mean))
    assert torch.equal(stacked[1], ensemble_reward_variance(mean))
    assert torch.equal(stacked[2], max_predicted_variance(log_variance))
    assert measures(mean)[2].tolist() == [0.0] * 6


def test_penalty_by_hand():
    u = torch.tensor([[3.0, 0.1], [1.0, 0.2], [9.0, 0.3]])
    typical = torch.tensor([0.5, 0.25, 1.0])
    # 1 * (min(3, 2) - 0.5) + 2 * (min(1, 2) - 0.25) + 4 * (min(9, 2) - 1); the second row is below everywhere.
    assert penalty(u, (1.0, 2.0, 4.0), torch.full((3,), 2.0), typical).tolist() == [1.5 + 1.5 + 4.0, 0.0]
    assert penalty(u[:, :1], (1.0, 2.0, 4.0), torch.tensor([2.0, 2.0, 1.0]), torch.zeros(3)).tolist() == [8.0]
    assert penalty(u, (0.0, 0.0, 0.0), torch.full((3,), 2.0), typical).tolist() == [0.0, 0.0]
