"""The team's critic, with every mixer."""

import dataclasses

import pytest
import torch

from momalit.core.errors import UserError
from momalit.core.records import Sequence
from momalit.nn.critics import OBSERVES, TeamCritic
from momalit.nn.mixers import MIXERS, NO_MIXER

TIME, BATCH = 4, 5


def make_sequence(spec):
    torch.manual_seed(0)
    previous = torch.randn(TIME, BATCH, spec.n_agents, spec.action_size) * spec.action_mask()
    return Sequence(torch.randn(TIME, BATCH, spec.state_size), previous, torch.ones(TIME, BATCH, dtype=torch.bool))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("mixer", [*MIXERS, NO_MIXER])
def test_every_mixer_gives_one_value_per_step_and_batch_entry(mixed_team, mixer, shared):
    critic = TeamCritic(mixed_team, 8, 4, mixer, shared)
    sequence = make_sequence(mixed_team)
    value = critic(sequence)
    assert value.shape == (TIME, BATCH)
    value.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in critic.parameters())
    hidden_state = critic.hidden_states(sequence.map(lambda x: x[:2]))
    later = critic(sequence.map(lambda x: x[2:]), None if hidden_state is None else hidden_state[:, -1])
    torch.testing.assert_close(later, value[2:])


def test_without_a_mixer_the_value_depends_on_the_state_only(mixed_team):
    critic = TeamCritic(mixed_team, 8, 4, NO_MIXER)
    sequence = make_sequence(mixed_team)
    other = dataclasses.replace(sequence, previous_action=sequence.previous_action + 1, keep=~sequence.keep)
    assert torch.equal(critic(sequence), critic(other))
    assert critic.hidden_states(sequence) is None


@pytest.mark.parametrize("mixer", [*MIXERS, NO_MIXER])
def test_states_are_standardised(mixed_team, mixer):
    critic = TeamCritic(mixed_team, 8, 4, mixer)
    sequence = make_sequence(mixed_team)
    first = critic(sequence)
    critic.inputs.standardizer.mean.fill_(7.0)
    critic.inputs.standardizer.std.fill_(3.0)
    torch.testing.assert_close(critic(dataclasses.replace(sequence, state=sequence.state * 3 + 7)), first)


@pytest.mark.parametrize("observes", OBSERVES)
def test_value_networks_read_observations_or_the_state(mixed_team, observes):
    critic = TeamCritic(mixed_team, 8, 4, "vdn", observes=observes)
    sequence = make_sequence(mixed_team)
    changed = dataclasses.replace(sequence, state=sequence.state.clone())
    hidden = set(range(mixed_team.state_size)) - set(mixed_team.agents[0].observes)
    changed.state[..., sorted(hidden)] += 1
    same = torch.equal(critic.hidden_states(sequence)[0], critic.hidden_states(changed)[0])
    assert hidden and same == (observes == "observations")


def test_unknown_observations_are_named(mixed_team):
    with pytest.raises(UserError, match=r"^model\.critic_observes: found 'all', expected observations or state$"):
        TeamCritic(mixed_team, observes="all")
