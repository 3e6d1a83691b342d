"""The team's value with every mixer."""

import dataclasses

import pytest
import torch

from momalit.core.records import Sequence
from momalit.nn.critics import TeamCritic
from momalit.nn.mixers import MIXERS, NO_MIXER

TIME, ROWS = 4, 5


def sequence(spec):
    torch.manual_seed(0)
    previous = torch.randn(TIME, ROWS, spec.n_agents, spec.action_size) * spec.action_mask()
    return Sequence(torch.randn(TIME, ROWS, spec.state_size), previous, torch.ones(TIME, ROWS, dtype=torch.bool))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("mixer", [*MIXERS, NO_MIXER])
def test_every_mixer_gives_one_value_per_time_and_row(mixed_team, mixer, shared):
    critic = TeamCritic(mixed_team, 8, 4, mixer, shared)
    given = sequence(mixed_team)
    value = critic(given)
    assert value.shape == (TIME, ROWS)
    value.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in critic.parameters())
    hidden_state = critic.hidden_states(given.map(lambda x: x[:2]))
    later = critic(given.map(lambda x: x[2:]), None if hidden_state is None else hidden_state[:, -1])
    torch.testing.assert_close(later, value[2:])


def test_without_a_mixer_it_sees_the_state_and_nothing_else(mixed_team):
    critic = TeamCritic(mixed_team, 8, 4, NO_MIXER)
    given = sequence(mixed_team)
    other = dataclasses.replace(given, previous_action=given.previous_action + 1, keep=~given.keep)
    assert torch.equal(critic(given), critic(other))
    assert critic.hidden_states(given) is None


@pytest.mark.parametrize("mixer", [*MIXERS, NO_MIXER])
def test_states_are_standardised(mixed_team, mixer):
    critic = TeamCritic(mixed_team, 8, 4, mixer)
    given = sequence(mixed_team)
    first = critic(given)
    critic.inputs.standardizer.mean.fill_(7.0)
    critic.inputs.standardizer.std.fill_(3.0)
    torch.testing.assert_close(critic(dataclasses.replace(given, state=given.state * 3 + 7)), first)
