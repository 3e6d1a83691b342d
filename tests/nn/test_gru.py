"""The stacked GRU, compared with PyTorch's."""

import pytest
import torch

from momalit.nn.gru import StackedGRU
from momalit.nn.stacked import StackedLinear, StackedMLP


@pytest.fixture
def gru() -> StackedGRU:
    torch.manual_seed(0)
    return StackedGRU(2, 5, 7).double()


def inputs(time: int = 6, batch: int = 3):
    return (torch.randn(2, time, batch, 5, dtype=torch.double), torch.randn(2, batch, 7, dtype=torch.double))


def test_each_network_equals_torch(gru):
    x, h = inputs()
    result = gru(x, torch.ones(6, 3), h)
    for i in range(2):
        reference = torch.nn.GRU(5, 7).double()
        with torch.no_grad():
            reference.weight_ih_l0.copy_(gru.input.weight[i].T)
            reference.weight_hh_l0.copy_(gru.hidden.weight[i].T)
            reference.bias_ih_l0.copy_(gru.input.bias[i, 0])
            reference.bias_hh_l0.copy_(gru.hidden.bias[i, 0])
        torch.testing.assert_close(result[i], reference(x[i], h[i : i + 1])[0])


def test_gradients_are_exact(gru):
    x, h = inputs(4, 2)
    keep = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 1.0]]).double()
    leaves = (x.requires_grad_(), h.requires_grad_(), *gru.parameters())
    assert torch.autograd.gradcheck(lambda x, h, *_: gru(x, keep, h), leaves)


def test_keep_of_zero_resets_the_hidden_state(gru):
    x, h = inputs()
    keep = torch.ones(6, 3)
    keep[2] = 0
    torch.testing.assert_close(gru(x, keep, h)[:, 2:], gru(x[:, 2:], torch.ones(4, 3)))


def test_running_step_by_step_equals_running_the_whole_sequence(gru):
    x, h = inputs()
    whole, state = gru(x, torch.ones(6, 3), h), h
    for t in range(6):
        state = gru(x[:, t : t + 1], torch.ones(1, 3), state)[:, -1]
        torch.testing.assert_close(state, whole[:, t])


def test_stacked_layers_equal_single_layers():
    torch.manual_seed(0)
    layer, x = StackedLinear(3, 4, 2), torch.randn(3, 5, 6, 4)
    for i in range(3):
        torch.testing.assert_close(layer(x)[i], x[i] @ layer.weight[i] + layer.bias[i, 0])
    mlp = StackedMLP(3, 4, (8,), 2)
    first, _, last = mlp
    hidden = torch.nn.functional.silu(x[1] @ first.weight[1] + first.bias[1, 0])
    torch.testing.assert_close(mlp(x)[1], hidden @ last.weight[1] + last.bias[1, 0])
