"""Random priors: their variance and correlation, and an ensemble that differs only where it has no data."""

import math

import torch

from momalit.functional.uncertainty import ensemble_covariance_norm
from momalit.nn.ensemble import EnsembleNetwork
from momalit.nn.random_priors import RandomPriors


def test_functions_have_unit_variance_and_the_stated_correlation():
    torch.manual_seed(0)
    n_in = 12
    priors = RandomPriors(2_000, n_in, 1)
    a = torch.randn(1, n_in)
    direction = torch.nn.functional.normalize(torch.randn(1, n_in), dim=-1)
    points = torch.cat([a, a + direction * math.sqrt(2 * n_in), a + direction * 100])
    values = priors(points.expand(2_000, 3, n_in)).squeeze(-1)
    torch.testing.assert_close(values.var(0), torch.ones(3), rtol=0.12, atol=0)
    correlation = torch.corrcoef(values.T)[0]
    torch.testing.assert_close(correlation[1:], torch.tensor([math.exp(-1), 0.0]), atol=0.08, rtol=0)


def test_members_differ_where_there_are_no_data():
    def disagreement(prior_scale):
        torch.manual_seed(0)
        network = EnsembleNetwork(5, 2, 32, 1, 1, prior_scale)
        x = torch.randn(512, 2) * torch.tensor([1.0, 0.1])  # the second column hardly varies
        y = x[:, :1].sin()
        optimiser = torch.optim.Adam(network.parameters(), 3e-3)
        for _ in range(400):
            loss = (network(x.expand(5, -1, -1)).mean - y).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            known, unknown = (
                ensemble_covariance_norm(network(points.expand(5, -1, -1)).mean).mean()
                for points in (x, x + torch.tensor([0.0, 3.0]))
            )
        return float(known), float(unknown)

    known, unknown = disagreement(1.0)
    assert known < 0.01 < 0.1 < unknown
    assert unknown > 3 * disagreement(0.0)[1]


def test_priors_do_not_train_and_belong_to_their_members():
    network = EnsembleNetwork(4, 3, 8, 1, 2, 1.0)
    assert not any("priors" in name for name, _ in network.named_parameters())
    x = torch.randn(7, 3)
    subset = network.subset(torch.tensor([2, 0]))
    torch.testing.assert_close(subset(x.expand(2, 7, 3)).mean, network(x.expand(4, 7, 3)).mean[[2, 0]])
