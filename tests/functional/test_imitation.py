"""What logged joint actions count, against numbers worked out by hand, and the convention that follows from it."""

import math

import pytest
import torch

from momalit.functional.imitation import LEAST_SHARE, MAX_ADVANTAGE, imitation_advantage


def row(*values: float) -> torch.Tensor:
    return torch.tensor([values])


def imitate_rare(advantage: torch.Tensor, log_ratio: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Returns what joint actions count that the team hardly takes yet."""
    return imitation_advantage(advantage, torch.full_like(advantage, -100.0), log_ratio, valid)


def test_only_better_valid_steps_count():
    valid = torch.tensor([[True, True, True, False]])
    found = imitate_rare(row(2.0, -1.0, 0.0, 5.0), row(0.0, 0.0, 0.0, 0.0), valid)
    torch.testing.assert_close(found, row(2.0, 0.0, 0.0, 0.0))


def test_nothing_counts_where_nothing_is_better():
    valid = torch.ones(3, 2, dtype=torch.bool)
    assert not imitate_rare(-torch.rand(3, 2), torch.randn(3, 2), valid).any()
    assert not imitate_rare(torch.rand(3, 2), torch.randn(3, 2), ~valid).any()


def test_the_likelier_of_two_equally_good_joint_actions_counts_more():
    # ρ is 0.3 and 0.1, so that q is 3/4 and 1/4, and the weights, whose mean is 1, are 3/2 and 1/2.
    found = imitate_rare(row(2.0, 2.0), row(math.log(0.3), math.log(0.1)), torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(found, row(3.0, 1.0))


def test_the_better_of_two_equally_likely_joint_actions_counts_more():
    # q ∝ exp(A): 2/3 and 1/3.
    found = imitate_rare(row(1 + math.log(2), 1.0), row(-5.0, -5.0), torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(found, row((1 + math.log(2)) * 4 / 3, 2 / 3))


def test_advantages_are_bounded():
    assert float(imitate_rare(row(1e6), row(0.0), torch.ones(1, 1, dtype=torch.bool))) == MAX_ADVANTAGE


def test_steps_that_the_team_takes_already_do_not_outweigh_those_it_should_learn():
    # 99 steps that the team takes with π = 0.9999 seem better by chance; one that it hardly takes is.
    advantage = torch.ones(1, 100)
    log_prob, log_ratio = torch.full((2, 1, 100), math.log(0.9999))
    log_prob[0, 0] = log_ratio[0, 0] = -50.0
    found = imitation_advantage(advantage, log_prob, log_ratio, torch.ones(1, 100, dtype=torch.bool))
    assert found.sum() == pytest.approx(1 + 99 * 1e-4, abs=1e-4)
    assert found[0, 0] > 0.1


@pytest.mark.parametrize("spread", [10.0, 1e3, 1e6])
def test_many_steps_count_however_different_their_probabilities_are(spread):
    log_ratio = -spread * torch.rand(10, 100, generator=torch.Generator().manual_seed(0))
    weight = imitate_rare(torch.ones(10, 100), log_ratio, torch.ones(10, 100, dtype=torch.bool))
    effective = float(weight.sum() ** 2 / weight.square().sum())
    assert LEAST_SHARE * 1000 <= effective <= 1001
    assert float(weight.mean()) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("agents", [2, 8, 64])
def test_agents_settle_on_one_of_two_conventions(agents):
    """A log has 51 joint actions (0, ..., 0) and 49 (1, ..., 1); each agent imitates its own part of them."""
    actions = torch.zeros(100, agents)
    actions[51:] = 1
    chosen = torch.full((agents,), 0.5)  # probability of action 1
    for _ in range(500):
        likeliest = torch.maximum(chosen, 1 - chosen)
        log_prob = torch.where(actions == 1, chosen, 1 - chosen).log().sum(1)
        log_ratio = log_prob - likeliest.log().sum()
        better = torch.ones(1, 100, dtype=torch.bool)
        weight = imitation_advantage(torch.ones(1, 100), log_prob[None], log_ratio[None], better)[0]
        chosen = (chosen + 0.1 * weight @ (actions - chosen) / 100).clamp(1e-3, 1 - 1e-3)
    assert chosen.max() < 0.1  # and not 0.49, with which 64 agents agree once in 2^63 times
