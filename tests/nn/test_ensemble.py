"""The networks of the dynamics ensemble."""

import torch

from momalit.nn.ensemble import EnsembleNetwork


def test_members_are_independent_networks():
    network = EnsembleNetwork(3, 4, 8, 1, 5)
    x = torch.randn(3, 7, 4)
    first = network(x)
    assert first.mean.shape == first.log_variance.shape == (3, 7, 5)
    assert first.termination.shape == (3, 7)
    changed = x.clone()
    changed[1] += 1
    second = network(changed)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a[[0, 2]], b[[0, 2]])
        assert not torch.equal(a[1], b[1])


def test_log_variance_stays_within_its_limits_and_passes_gradients():
    network = EnsembleNetwork(2, 4, 8, 1, 3)
    network.layers.last.weight.data.mul_(1e3)
    prediction = network(torch.randn(2, 500, 4) * 100)
    assert prediction.log_variance.max() <= 0.5 + 1e-4
    assert prediction.log_variance.min() >= -10 - 1e-4
    prediction.log_variance.sum().backward()
    assert network.highest.grad.abs().min() > 0


def test_range_penalty_is_the_mean_distance_of_the_limits():
    assert EnsembleNetwork(2, 4, 8, 1, 3).range_penalty().tolist() == [10.5, 10.5]


def test_copy_members_copies_the_selected_members():
    target, source = EnsembleNetwork(3, 4, 8, 2, 2), EnsembleNetwork(3, 4, 8, 2, 2)
    for parameter in (*target.parameters(), *source.parameters()):
        parameter.data.normal_()
    before = [p.clone() for p in target.parameters()]
    target.copy_members(source, torch.tensor([True, False, True]))
    for old, new, copied in zip(before, target.parameters(), source.parameters(), strict=True):
        assert torch.equal(new[[0, 2]], copied[[0, 2]])
        assert torch.equal(new[1], old[1])


def test_subset_predicts_like_the_selected_members():
    for n_blocks in (2, 0):
        network = EnsembleNetwork(4, 3, 8, n_blocks, 2)
        for parameter in network.parameters():
            parameter.data.normal_()
        subset = network.subset(torch.tensor([2, 0]))
        x = torch.randn(7, 3)
        all_members, selected = network(x.expand(4, 7, 3)), subset(x.expand(2, 7, 3))
        for a, b in zip(all_members, selected, strict=True):
            torch.testing.assert_close(b, a[[2, 0]])
        assert not any(p.requires_grad for p in subset.parameters())
