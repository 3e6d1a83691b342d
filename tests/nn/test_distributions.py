"""The team's distributions, compared with those of ``torch.distributions``."""

import pytest
import torch
from torch.distributions import Categorical, Normal

from momalit.nn.distributions import TeamCategorical, TeamGaussian

NO_PADDING = torch.ones(2, 3)
MASK = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])


def gaussian(mask, batch=(4, 5)):
    return TeamGaussian(torch.randn(*batch, 2, 3), torch.randn(2, 3) * 0.3, mask)


def test_gaussian_equals_torch():
    policy = gaussian(NO_PADDING)
    action = torch.randn(4, 5, 2, 3)
    reference = Normal(policy.mean, policy.log_std.exp().expand_as(policy.mean))
    torch.testing.assert_close(policy.log_prob(action), reference.log_prob(action).sum(-1))
    torch.testing.assert_close(policy.entropy, reference.entropy().sum(-1))
    assert torch.equal(policy.mode, policy.mean)


def test_gaussian_padding_has_no_effect():
    policy = gaussian(MASK)
    action = torch.randn(4, 5, 2, 3)
    changed_padding = torch.where(MASK.bool(), action, 1e3 * torch.randn_like(action))
    torch.testing.assert_close(policy.log_prob(action), policy.log_prob(changed_padding))
    reference = Normal(policy.mean[..., 0, 0], policy.log_std[0, 0].exp())
    torch.testing.assert_close(policy.log_prob(action)[..., 0], reference.log_prob(action[..., 0, 0]))
    torch.testing.assert_close(policy.entropy[..., 0], reference.entropy())
    assert torch.equal(policy.sample()[..., 0, 1:], policy.mean[..., 0, 1:])


def test_gaussian_samples_have_the_right_moments():
    generator = torch.Generator().manual_seed(0)
    policy = TeamGaussian(
        torch.tensor([[1.0, -2.0]]).expand(100_000, 1, 2), torch.tensor([[0.0, -1.0]]), NO_PADDING[:1, :2]
    )
    sample = policy.sample(generator)
    torch.testing.assert_close(sample.mean(0), torch.tensor([[1.0, -2.0]]), atol=0.02, rtol=0)
    torch.testing.assert_close(sample.std(0), torch.tensor([[1.0, -1.0]]).sub(torch.tensor([[1.0, 0.0]])).exp(),
                               atol=0.02, rtol=0)  # fmt: skip


def test_gaussian_log_prob_is_differentiable():
    mean, log_std = torch.zeros(4, 2, 3, requires_grad=True), torch.zeros(2, 3, requires_grad=True)
    TeamGaussian(mean, log_std, MASK).log_prob(torch.ones(4, 2, 3)).sum().backward()
    assert torch.equal(mean.grad, MASK.expand(4, -1, -1))  # (a - μ) / σ² = 1 except in padding
    assert log_std.grad[0, 1:].abs().max() == 0


def test_categorical_equals_torch():
    scores = torch.randn(4, 5, 2, 3)
    policy = TeamCategorical.from_scores(scores, torch.ones(2, 3, dtype=torch.bool))
    reference = Categorical(logits=scores)
    choice = reference.sample()
    action = torch.nn.functional.one_hot(choice, 3).float()
    torch.testing.assert_close(policy.log_prob(action), reference.log_prob(choice))
    torch.testing.assert_close(policy.entropy, reference.entropy())
    assert torch.equal(policy.mode.argmax(-1), scores.argmax(-1))


def test_categorical_ignores_illegal_choices():
    scores = torch.randn(4, 2, 3)
    legal = torch.tensor([[True, False, True], [True, True, True]])
    policy = TeamCategorical.from_scores(scores, legal)
    reference = Categorical(logits=scores[:, 0, [0, 2]])
    torch.testing.assert_close(policy.entropy[:, 0], reference.entropy())
    action = torch.tensor([0.0, 0.0, 1.0]).expand(4, 2, 3)
    torch.testing.assert_close(policy.log_prob(action)[:, 0], reference.log_prob(torch.ones(4)))
    scores = torch.where(legal, scores, 1e3)
    torch.testing.assert_close(TeamCategorical.from_scores(scores, legal).logits[:, 0, 2], policy.logits[:, 0, 2])


def test_one_legal_choice_gives_zero_entropy_and_no_gradient():
    scores = torch.randn(2, 3, requires_grad=True)
    policy = TeamCategorical.from_scores(scores, MASK.bool())
    (policy.entropy + policy.log_prob(policy.mode)).sum().backward()
    assert policy.entropy[0] == 0
    assert policy.log_prob(policy.mode)[0] == 0
    assert torch.isfinite(scores.grad).all()
    assert scores.grad[0].abs().max() == 0


def test_categorical_sample_frequencies_equal_probabilities():
    generator = torch.Generator().manual_seed(0)
    scores = torch.tensor([[2.0, 50.0, 1.0], [0.0, 1.0, 2.0]])
    legal = torch.tensor([[True, False, True], [True, True, True]])
    policy = TeamCategorical.from_scores(scores.expand(100_000, 2, 3), legal)
    sample = policy.sample(generator)
    assert torch.equal(sample.sum(-1), torch.ones(100_000, 2))
    frequency = sample.mean(0)
    assert frequency[0, 1] == 0
    expected = torch.softmax(torch.where(legal, scores, -torch.inf), -1)
    torch.testing.assert_close(frequency, expected, atol=0.01, rtol=0)
    assert policy.mode[:, 0, 1].max() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_categorical_is_finite_in_every_precision(dtype):
    policy = TeamCategorical.from_scores(torch.zeros(2, 3, dtype=dtype), MASK.bool())
    assert torch.isfinite(policy.entropy).all()
    assert torch.isfinite(policy.log_prob(policy.mode)).all()


def test_samples_depend_on_the_generator_only():
    for policy in (gaussian(NO_PADDING), TeamCategorical.from_scores(torch.zeros(50, 2, 3), MASK.bool())):
        first, second, other = (policy.sample(torch.Generator().manual_seed(s)) for s in (1, 1, 2))
        assert torch.equal(first, second)
        assert not torch.equal(first, other)
