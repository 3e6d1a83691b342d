"""PPO's losses against hand-computed numbers."""

import math

import pytest
import torch

from momalit.functional.surrogate import clipped_objective, kl_estimate, masked_mean, masked_means


def ratios(*values):
    """Log-probabilities (1, B, 1) with these ratios to an old log-probability of zero."""
    return torch.tensor(values).log().view(1, -1, 1)


def loss(ratio, advantage, valid=None):
    new = ratios(*ratio)
    given = torch.tensor(advantage, dtype=torch.float32).view(1, -1)
    mask = torch.ones_like(given, dtype=torch.bool) if valid is None else torch.tensor(valid).view(1, -1)
    return -float(masked_mean(clipped_objective(new, torch.zeros_like(new), given, clip_epsilon=0.2), mask))


@pytest.mark.parametrize(
    ("ratio", "advantage", "objective"),
    [
        (1.0, 2.0, 2.0),
        (1.1, 2.0, 2.2),  # within the clip range
        (1.5, 2.0, 2.4),  # clipped at 1.2
        (0.5, 2.0, 1.0),  # a worse ratio is not clipped: min(0.5 * 2, 0.8 * 2)
        (0.5, -2.0, -1.6),  # clipped at 0.8
        (1.5, -2.0, -3.0),  # not clipped: min(1.5 * -2, 1.2 * -2)
    ],
)
def test_clipped_objective(ratio, advantage, objective):
    assert loss([ratio], [advantage]) == pytest.approx(-objective, abs=1e-6)


def test_the_mean_is_over_valid_steps():
    # -(2.2 - 1.6) / 2; the third step does not count.
    assert loss([1.1, 0.5, 3.0], [2.0, -2.0, 50.0], [True, True, False]) == pytest.approx(-0.3, abs=1e-6)
    assert loss([1.1], [2.0], [False]) == 0.0


def test_agents_share_the_advantage_and_are_clipped_separately():
    new = torch.tensor([1.5, 1.0, 0.9]).log().view(1, 1, 3)
    value = clipped_objective(new, torch.zeros_like(new), torch.tensor([[1.0]]), 0.2)
    torch.testing.assert_close(value, torch.tensor([[[1.2, 1.0, 0.9]]]))
    assert float(masked_mean(value, torch.tensor([[True]]))) == pytest.approx((1.2 + 1.0 + 0.9) / 3, abs=1e-6)


def test_the_gradient_vanishes_only_outside_the_clip_range():
    new = ratios(1.5, 1.1).requires_grad_()
    clipped_objective(new, torch.zeros_like(new), torch.ones(1, 2)).mean().backward()
    assert float(new.grad[0, 0, 0]) == 0.0
    assert float(new.grad[0, 1, 0]) == pytest.approx(1.1 / 2, abs=1e-6)


def test_kl_estimate_by_hand():
    # r = 2: (2 - 1) - ln 2; r = 1: 0. The mean is over these two; the third is masked.
    new = ratios(2.0, 1.0, 9.0)
    value = masked_mean(kl_estimate(new, torch.zeros_like(new)), torch.tensor([[True, True, False]]))
    assert float(value) == pytest.approx((1 - math.log(2)) / 2, abs=1e-6)


def test_kl_estimate_of_samples_matches_the_closed_form():
    torch.manual_seed(0)
    old, new = torch.distributions.Normal(0.0, 1.0), torch.distributions.Normal(0.3, 0.9)
    action = old.sample((1, 200_000, 1))
    value = kl_estimate(new.log_prob(action), old.log_prob(action))
    assert float(value.mean()) == pytest.approx(float(torch.distributions.kl_divergence(old, new)), rel=0.03)


def test_masked_mean_broadcasts_the_mask_over_trailing_axes():
    values = torch.arange(6.0).view(1, 3, 2)
    assert float(masked_mean(values, torch.tensor([[True, False, True]]))) == (0 + 1 + 4 + 5) / 4
    assert float(masked_mean(values, torch.zeros(1, 3, dtype=torch.bool))) == 0.0


def test_masked_means_equal_separate_masked_means():
    values = [torch.randn(4, 3, 2), torch.randn(4, 3), torch.randn(4, 3, 5)]
    for mask in (torch.rand(4, 3) < 0.5, torch.zeros(4, 3, dtype=torch.bool)):
        expected = torch.stack([masked_mean(value, mask) for value in values])
        torch.testing.assert_close(masked_means(values, mask), expected)


def test_a_step_that_the_policies_would_never_take_again_is_still_a_number():
    new = torch.tensor([[[1000.0]]], requires_grad=True)
    for value in (
        clipped_objective(new, torch.zeros_like(new), torch.tensor([[0.0]])),
        kl_estimate(new, torch.zeros(())),
    ):
        (gradient,) = torch.autograd.grad(masked_means([value], torch.tensor([[False]])).sum(), new)
        assert float(gradient) == 0
        assert bool(torch.isfinite(value).all())
