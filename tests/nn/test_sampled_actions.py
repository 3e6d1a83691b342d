import torch

from momalit.nn.sampled_actions import sampled_action_values


def test_values_and_gradients_are_those_of_the_plain_formula():
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(shape, generator=generator, requires_grad=True)

    parts = [random(3, 5, 8), random(4, 3, 5, 2), random(3, 2, 8), random(3, 8, 1)]
    known, tried, weight, out = parts
    plain = torch.relu(known + tried @ weight) @ out
    found = sampled_action_values(*parts)
    torch.testing.assert_close(found, plain)
    slope = torch.randn(plain.shape, generator=generator)
    for a, b in zip(torch.autograd.grad(found, parts, slope), torch.autograd.grad(plain, parts, slope), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_a_gradient_is_made_for_the_actions_only_where_one_is_wanted():
    known, tried = torch.randn(2, 3, 4), torch.randn(5, 2, 3, 1, requires_grad=True)
    sampled_action_values(known, tried, torch.randn(2, 1, 4), torch.randn(2, 4, 1)).sum().backward()
    assert tried.grad is not None
