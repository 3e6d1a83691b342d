"""Stacked networks, compared with a loop over ordinary ones."""

import pytest
import torch
from torch import nn

from momalit.nn.stacked import StackedLayerNorm, StackedLinear, StackedMLP, StackedResidualNetwork


def single_layer(stacked, i):
    """Layer i of a stacked linear layer as an ``nn.Linear``."""
    layer = nn.Linear(stacked.weight.shape[1], stacked.weight.shape[2])
    layer.weight.data, layer.bias.data = stacked.weight[i].T, stacked.bias[i, 0]
    return layer


def test_linear_equals_a_loop():
    layer = StackedLinear(3, 4, 5)
    x = torch.randn(3, 7, 4)
    expected = torch.stack([single_layer(layer, i)(x[i]) for i in range(3)])
    torch.testing.assert_close(layer(x), expected)


def test_axes_between_the_first_and_the_last_are_batch_axes():
    layer = StackedLinear(2, 3, 4)
    x = torch.randn(2, 5, 6, 3)
    torch.testing.assert_close(layer(x), layer(x.reshape(2, 30, 3)).reshape(2, 5, 6, 4))
    assert layer(torch.randn(2, 0, 3)).shape == (2, 0, 4)


def test_layers_are_independent():
    layer = StackedLinear(3, 4, 5)
    x = torch.randn(3, 7, 4, requires_grad=True)
    layer(x)[1].sum().backward()
    assert layer.weight.grad[[0, 2]].abs().max() == 0
    assert layer.weight.grad[1].abs().min() > 0
    assert x.grad[[0, 2]].abs().max() == 0


def test_mlp_equals_a_loop():
    mlp = StackedMLP(3, 4, (8, 6), 2)
    loop = [
        nn.Sequential(*[single_layer(part, i) if isinstance(part, StackedLinear) else nn.SiLU() for part in mlp])
        for i in range(3)
    ]
    x = torch.randn(3, 7, 4)
    torch.testing.assert_close(mlp(x), torch.stack([net(x[i]) for i, net in enumerate(loop)]))


def test_mlp_without_hidden_layers_is_linear():
    assert len(StackedMLP(2, 3, (), 4)) == 1


def test_layer_norm_equals_a_loop():
    norm = StackedLayerNorm(3, 5)
    norm.weight.data.normal_()
    norm.bias.data.normal_()
    x = torch.randn(3, 7, 2, 5)
    expected = [nn.functional.layer_norm(x[i], (5,), norm.weight[i, 0], norm.bias[i, 0]) for i in range(3)]
    torch.testing.assert_close(norm(x), torch.stack(expected))


def test_residual_network_equals_a_loop():
    network = StackedResidualNetwork(3, 4, 8, 2, 5)
    x = torch.randn(3, 7, 4)

    def single(i):
        value = single_layer(network.first, i)(x[i])
        for _, first, _, second in network.blocks:
            normed = nn.functional.layer_norm(value, (8,))
            value = value + single_layer(second, i)(nn.functional.silu(single_layer(first, i)(normed)))
        return single_layer(network.last, i)(nn.functional.layer_norm(value, (8,)))

    torch.testing.assert_close(network(x), torch.stack([single(i) for i in range(3)]))


def test_residual_network_without_blocks_has_three_layers():
    assert len(list(StackedResidualNetwork(2, 3, 4, 0, 5).parameters())) == 6


@pytest.mark.parametrize(("n_in", "n_out"), [(4, 6), (6, 4)])
def test_orthogonal_initialisation(n_in, n_out):
    weight = StackedLinear(2, n_in, n_out, gain=2.0).weight.data
    for matrix in weight:
        gram = matrix @ matrix.T if n_in < n_out else matrix.T @ matrix
        torch.testing.assert_close(gram, 4.0 * torch.eye(min(n_in, n_out)), atol=1e-5, rtol=0)
    assert not torch.equal(weight[0], weight[1])


def test_default_initialisation_scales_with_the_number_of_inputs():
    layer = StackedLinear(5, 100, 50)
    assert layer.weight.abs().max() <= 0.1
    assert float(layer.weight.detach().std()) == pytest.approx(0.1 / 3**0.5, rel=0.05)
