"""Mixers of the agents' values."""

import pytest
import torch

from momalit.core.errors import UserError
from momalit.nn.mixers import MIXERS, make_mixer


def gradients(name, agents=4):
    torch.manual_seed(0)
    mixer = make_mixer(name, agents, 6)
    values, state = torch.randn(20, 10, agents, requires_grad=True), torch.randn(20, 10, 6)
    mixed = mixer(values, state)
    assert mixed.shape == (20, 10)
    return torch.autograd.grad(mixed.sum(), values)[0]


def test_qmix_is_monotonic_in_the_agents_values():
    gradient = gradients("qmix")
    assert gradient.min() >= 0
    assert gradient.mean() > 0


def test_qmix_weights_depend_on_the_state():
    mixer = make_mixer("qmix", 2, 3)
    values = torch.ones(1, 2, requires_grad=True)
    first, second = (torch.autograd.grad(mixer(values, torch.full((1, 3), x)).sum(), values)[0] for x in (0.0, 2.0))
    assert not torch.allclose(first, second)


def test_vdn_is_the_sum():
    values = torch.randn(5, 3)
    torch.testing.assert_close(make_mixer("vdn", 3, 2)(values, torch.randn(5, 2)), values.sum(-1))


def test_linear_mixer_is_linear_with_weights_of_either_sign():
    gradient = gradients("linear")
    assert gradient.min() < 0 < gradient.max()
    mixer = make_mixer("linear", 3, 2)
    state, a, b = torch.randn(5, 2), torch.randn(5, 3), torch.randn(5, 3)
    torch.testing.assert_close(mixer(a, state) + mixer(b, state), mixer(a + b, state) + mixer(a * 0, state))


@pytest.mark.parametrize("name", MIXERS)
def test_values_are_finite_for_one_agent_and_many(name):
    for agents in (1, 64):
        assert torch.isfinite(make_mixer(name, agents, 3)(torch.randn(7, agents), torch.randn(7, 3))).all()


def test_an_unknown_name_raises_an_error():
    with pytest.raises(UserError, match=r"model\.mixer: found 'qmox', expected one of qmix, vdn, linear, none"):
        make_mixer("qmox", 2, 3)
