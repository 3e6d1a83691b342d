"""Muon against an exact decomposition, against AdamW, and whatever members are trained together."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from momalit.nn.ensemble import EnsembleNetwork
from momalit.training.muon import Muon, orthogonalised
from momalit.world_model.member_share import parameter_groups


@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 16, 48), (2, 48, 16)])
def test_singular_values_become_alike_and_their_vectors_stay(shape: tuple[int, ...]) -> None:
    left, values, right = torch.linalg.svd(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    size = values.shape[-1]
    spread = torch.logspace(0, -2, size).expand_as(values)  # the largest one a hundred times the smallest
    left, right = left[..., :size], right[..., :size, :]
    found = orthogonalised(left * spread.unsqueeze(-2) @ right)
    inner = left.mT @ found @ right.mT
    diagonal = torch.diagonal(inner, dim1=-2, dim2=-1)
    assert diagonal.min() > 0.5
    assert diagonal.max() < 1.3
    assert (inner - torch.diag_embed(diagonal)).abs().max() < 1e-3


def test_zero_gradients_and_zero_weights() -> None:
    assert torch.equal(orthogonalised(torch.zeros(2, 4, 4)), torch.zeros(2, 4, 4))


def train(members: torch.Tensor, steps: int = 4, products: torch.dtype = torch.float32) -> EnsembleNetwork:
    """Some members of an ensemble, trained on the same data whoever else is there."""
    torch.manual_seed(0)
    network = EnsembleNetwork(5, 9, 32, 2, 4).subset(members).requires_grad_(True)
    data = torch.randn(5, 64, 9, generator=torch.Generator().manual_seed(1))[members]
    optimizer = Muon(parameter_groups(network, matrices=True), 0.01, 1e-5, products)
    for _ in range(steps):
        optimizer.zero_grad()
        prediction = network(data)
        (prediction.mean - data[..., :4]).square().sum((0, 2)).mean().backward()
        optimizer.step()
    return network


@pytest.mark.parametrize("products", [torch.float32, torch.bfloat16])
def test_members_do_not_depend_on_each_other(products: torch.dtype) -> None:
    """To the last bit, so that processes may divide them."""
    everyone = train(torch.arange(5), products=products)
    for part in (torch.tensor([1]), torch.tensor([2, 3, 4])):
        some = train(part, products=products)
        for whole, own in zip(everyone.parameters(), some.parameters(), strict=True):
            if products == torch.bfloat16 or whole.dim() == 3:
                assert torch.equal(whole[part], own)


def after_a_step(*shape: int) -> tuple[torch.nn.Parameter, Muon]:
    """Matrices of zeros that took one step along a random gradient, and their optimiser."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(*shape))
    optimizer = Muon([{"params": [weight], "matrices": True}], lr=0.01)
    weight.grad = torch.randn(*shape)
    optimizer.step()
    return weight, optimizer


def test_steps_have_the_size_of_adamw() -> None:
    weight, _ = after_a_step(3, 64, 64)
    size = weight.detach().square().mean().sqrt() / 0.01
    assert 0.1 < float(size) < 0.25  # singular values of about 1, times 0.2


def test_other_parameters_are_adamw() -> None:
    def trained(kind, **marks):
        torch.manual_seed(0)
        bias, weight = torch.nn.Parameter(torch.randn(2, 1, 8)), torch.nn.Parameter(torch.randn(2, 8, 8))
        optimizer = kind([{"params": [bias]}, {"params": [weight], **marks}], lr=0.01, weight_decay=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            (bias @ weight).square().sum().backward()
            bias.grad, weight.grad = torch.ones_like(bias), torch.ones_like(weight)
            optimizer.step()
        return bias, weight

    muon, adamw = trained(Muon, matrices=True), trained(torch.optim.AdamW)
    assert torch.equal(muon[0], adamw[0])
    assert not torch.equal(muon[1], adamw[1])


def test_its_state_is_saved_and_restored() -> None:
    torch.manual_seed(0)
    networks = [EnsembleNetwork(2, 5, 32, 1, 3) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    optimizers = [Muon(parameter_groups(network, matrices=True), 0.01) for network in networks]

    def step(network: EnsembleNetwork, optimizer: Muon) -> None:
        optimizer.zero_grad()
        network(torch.ones(2, 4, 5)).mean.square().sum().backward()
        optimizer.step()

    step(networks[0], optimizers[0])
    networks[1].load_state_dict(networks[0].state_dict())
    optimizers[1].load_state_dict(deepcopy(optimizers[0].state_dict()))
    for network, optimizer in zip(networks, optimizers, strict=True):
        step(network, optimizer)
    for one, other in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_closure_sees_all_groups() -> None:
    """Lightning's closure sets gradients to zero, also those of the matrices."""
    weight, bias = torch.nn.Parameter(torch.ones(1, 32, 32)), torch.nn.Parameter(torch.ones(1, 1, 32))
    optimizer = Muon([{"params": [bias]}, {"params": [weight], "matrices": True}], lr=0.01)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        assert weight.grad is None
        loss = (bias @ weight).square().sum()
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(3)]
    assert losses == sorted(losses, reverse=True)


def test_a_member_without_a_gradient_stays() -> None:
    """Whatever its momentum says: a frozen member would drift away otherwise."""
    weight, optimizer = after_a_step(2, 32, 32)
    before = weight.detach().clone()
    weight.grad[1] = 0
    optimizer.step()
    assert not torch.equal(weight[0], before[0])
    assert torch.equal(weight[1], before[1])
