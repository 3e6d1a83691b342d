"""Q-values of many actions per state, compared with plain autograd."""

import torch

from momalit.nn.sampled_actions import sampled_action_values


def test_values_and_gradients_equal_those_of_autograd():
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(shape, generator=generator, requires_grad=True)

    arguments = [random(3, 5, 8), random(4, 3, 5, 2), random(3, 2, 8), random(3, 8, 1)]
    features, actions, weight, out = arguments
    expected = torch.relu(features + actions @ weight) @ out
    result = sampled_action_values(*arguments)
    torch.testing.assert_close(result, expected)
    slope = torch.randn(expected.shape, generator=generator)
    gradients = torch.autograd.grad(result, arguments, slope)
    for a, b in zip(gradients, torch.autograd.grad(expected, arguments, slope), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_actions_alone_may_require_a_gradient():
    features, actions = torch.randn(2, 3, 4), torch.randn(5, 2, 3, 1, requires_grad=True)
    sampled_action_values(features, actions, torch.randn(2, 1, 4), torch.randn(2, 4, 1)).sum().backward()
    assert actions.grad is not None
