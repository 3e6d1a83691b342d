"""Ensemble uncertainty and the reward penalty, against hand-computed numbers and torch.cov."""

import pytest
import torch

from momalit.functional.uncertainty import (
    ensemble_covariance_norm,
    ensemble_reward_variance,
    max_predicted_variance,
    pessimistic_reward,
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


def test_pessimistic_reward_by_hand():
    # 10 - 0.5 * (1 * min(3, 2) + 2 * min(1, 2) + 4 * min(9, 2)) = 10 - 0.5 * (2 + 2 + 8).
    arguments = [torch.tensor([x]) for x in (10.0, 3.0, 1.0, 9.0)]
    assert pessimistic_reward(*arguments, coefficients=(1.0, 2.0, 4.0), limit=2.0, scale=0.5).tolist() == [4.0]
    assert pessimistic_reward(*arguments, coefficients=(0.0, 0.0, 0.0), limit=2.0).tolist() == [10.0]
