"""The team's policies: padding, masks, bounds, memory."""

import dataclasses

import pytest
import torch

from momalit.core.errors import UserError
from momalit.core.records import Sequence
from momalit.nn.actors import TeamActor
from momalit.nn.agent_inputs import AgentInputs

TIME, ROWS = 5, 6


def sequence(spec, seed=0):
    torch.manual_seed(seed)
    previous = torch.randn(TIME, ROWS, spec.n_agents, spec.action_size) * spec.action_mask()
    keep = torch.rand(TIME, ROWS) > 0.2
    return Sequence(torch.randn(TIME, ROWS, spec.state_size), previous, keep)


def lively(actor):
    """Gives the head weights of ordinary size: at the start it is nearly silent."""
    actor.head.weight.data.normal_(0, 1.0)
    return actor


def test_inputs_are_gathered_scaled_and_padded(mixed_team):
    inputs = AgentInputs(mixed_team)
    inputs.standardizer.mean.fill_(1.0)
    inputs.standardizer.std.fill_(2.0)
    state = torch.tensor([3.0, 5.0, 7.0, 9.0, 11.0])
    previous = torch.tensor([[0.5, 0.0], [1.0, 10.0]])
    result = inputs(state, previous)
    # a: columns 3, 1, then padding; its action as it is. b: columns 0, 2, 4; actions over [-2, 2] and [0, 10].
    torch.testing.assert_close(result, torch.tensor([[4.0, 2.0, 0.0, 0.5, 0.0], [1.0, 3.0, 5.0, 0.5, 1.0]]))


@pytest.mark.parametrize("shared", [False, True])
def test_shapes(mixed_team, shared):
    actor = TeamActor(mixed_team, 8, 4, shared)
    policy, hidden_state = actor(sequence(mixed_team))
    assert policy.mode.shape == (TIME, ROWS, 2, 2)
    assert policy.log_prob(policy.mode).shape == (TIME, ROWS, 2)
    assert policy.entropy.shape == (TIME, ROWS, 2)
    assert hidden_state.shape == (2, TIME, ROWS, 4)


@pytest.mark.parametrize("shared", [False, True])
def test_what_an_agent_does_not_see_changes_nothing(mixed_team, shared):
    actor = lively(TeamActor(mixed_team, 8, 4, shared))
    given = sequence(mixed_team)
    first = actor(given)[0].mean
    unseen_by_a = given.state.clone()
    unseen_by_a[..., [0, 2, 4]] += 10
    of_others = given.previous_action.clone()
    of_others[..., 1, :] += 3
    second = actor(dataclasses.replace(given, state=unseen_by_a, previous_action=of_others))[0].mean
    assert torch.equal(first[..., 0, :], second[..., 0, :])
    assert not torch.allclose(first[..., 1, :], second[..., 1, :])


@pytest.mark.parametrize("shared", [False, True])
def test_padding_does_not_leak(mixed_team, shared):
    actor = lively(TeamActor(mixed_team, 8, 4, shared))
    given = sequence(mixed_team)
    first, _ = actor(given)
    # Column 0 is where padded slots point, and the second action component of a does not exist.
    padded = given.previous_action.clone()
    padded[..., 0, 1] = 1e3
    state = given.state.clone()
    state[..., 0] = 1e3
    second, _ = actor(dataclasses.replace(given, state=state, previous_action=padded))
    assert torch.equal(first.mean[..., 0, :], second.mean[..., 0, :])
    action = first.sample()
    assert action[..., 0, 1].abs().max() == 0
    assert actor.clip(action + 5)[..., 0, 1].abs().max() == 0
    changed = action.clone()
    changed[..., 0, 1] = 77.0
    assert torch.equal(first.log_prob(action), first.log_prob(changed))


def test_means_stay_within_the_bounds(mixed_team):
    actor = TeamActor(mixed_team, 8, 4)
    actor.head.weight.data.normal_(0, 100.0)
    mean = actor(sequence(mixed_team))[0].mean
    low, high = mixed_team.action_low(), mixed_team.action_high()
    assert (mean >= low).all()
    assert (mean <= high).all()
    assert (mean[..., 1, 1].min() < 1) & (mean[..., 1, 1].max() > 9)
    clipped = actor.clip(mean + 100 * torch.randn_like(mean))
    assert (clipped >= low).all()
    assert (clipped <= high).all()


def test_exploration_begins_as_asked_in_units_of_the_action(mixed_team):
    std = TeamActor(mixed_team, 8, 4, initial_std=0.3, min_std=0.05, max_std=1.0).log_std.exp()
    torch.testing.assert_close(std[0, 0], torch.tensor(0.3))
    torch.testing.assert_close(std[1], torch.tensor([0.6, 1.5]))


@pytest.mark.parametrize(("raw", "share"), [(100.0, 1.0), (-100.0, 0.05)])
def test_exploration_is_bounded_on_either_side(mixed_team, raw, share):
    actor = TeamActor(mixed_team, 8, 4, min_std=0.05, max_std=1.0)
    actor.raw_std.data.fill_(raw)
    torch.testing.assert_close(actor.log_std.exp()[1], torch.tensor([2.0 * share, 5.0 * share]))


def test_action_masks_are_read_from_the_state(choosing_team):
    actor = lively(TeamActor(choosing_team, 8, 4))
    given = sequence(choosing_team)
    state = given.state.clone()
    state[..., 2:] = 0
    state[..., 3] = 1  # b may choose its second action only
    policy, _ = actor(dataclasses.replace(given, state=state))
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        sample = policy.sample(generator)
        assert torch.equal(sample[..., 1, :], torch.tensor([0.0, 1.0, 0.0]).expand(TIME, ROWS, 3))
        assert sample[..., 0, 2].max() == 0  # a has two choices
    assert policy.sample(generator)[..., 0, :2].sum(-1).min() == 1
    assert policy.entropy[..., 1].abs().max() == 0


def test_masks_differ_from_row_to_row_and_a_predicted_bit_counts_from_one_half(choosing_team):
    actor = TeamActor(choosing_team, 8, 4)
    state = torch.zeros(2, 5)
    state[0, 2:] = torch.tensor([0.9, 0.1, 0.1])
    state[1, 2:] = torch.tensor([0.4, 0.6, 0.7])
    policy = actor.distribution(torch.zeros(2, 2, 4), state)
    assert (policy.logits.exp() > 1e-6)[:, 1].tolist() == [[True, False, False], [False, True, True]]


def test_a_mask_that_forbids_everything_is_not_believed(choosing_team):
    actor = TeamActor(choosing_team, 8, 4)
    policy = actor.distribution(torch.zeros(2, 7, 4), torch.zeros(7, 5))
    torch.testing.assert_close(policy.logits[:, 1].exp(), torch.full((7, 3), 1 / 3))
    torch.testing.assert_close(policy.logits[:, 0].exp(), torch.tensor([0.5, 0.5, 0.0]).expand(7, 3))


@pytest.mark.parametrize("shared", [False, True])
def test_step_by_step_equals_the_whole_sequence(choosing_team, shared):
    actor = lively(TeamActor(choosing_team, 8, 4, shared))
    given = sequence(choosing_team)
    whole, _ = actor(given)
    hidden_state = None
    for t in range(TIME):
        now = given.map(lambda x, t=t: x[t : t + 1])
        policy, hidden_state = actor(now, hidden_state)
        hidden_state = hidden_state[:, -1]
        torch.testing.assert_close(policy.logits[0], whole.logits[t])


def test_a_shared_network_has_one_set_of_weights_and_still_tells_agents_apart(mixed_team):
    shared, apart = TeamActor(mixed_team, 8, 4, share_parameters=True), TeamActor(mixed_team, 8, 4)
    assert shared.trunk.gru.hidden.weight.shape[0] == 1
    assert apart.trunk.gru.hidden.weight.shape[0] == 2
    given = sequence(mixed_team)
    # The same input for both agents.
    same = torch.zeros_like(given.state)
    hidden_state = shared.hidden_states(Sequence(same, torch.zeros_like(given.previous_action), given.keep))
    assert not torch.allclose(hidden_state[0], hidden_state[1])


def test_a_shared_network_keeps_each_agents_own_memory(mixed_team):
    actor = TeamActor(mixed_team, 8, 4, share_parameters=True)
    given = sequence(mixed_team)
    first = actor.hidden_states(given)
    changed = given.state.clone()
    changed[0, 2, 0] += 5  # seen by b in row 2
    second = actor.hidden_states(dataclasses.replace(given, state=changed, keep=torch.ones_like(given.keep)))
    first = actor.hidden_states(dataclasses.replace(given, keep=torch.ones_like(given.keep)))
    differs = (first != second).any(-1).any(1)  # (agents, rows)
    expected = torch.zeros(2, ROWS, dtype=torch.bool)
    expected[1, 2] = True
    assert torch.equal(differs, expected)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"min_std": 0.0}, "model.min_std: found 0.0, expected a number above 0 and below 1.0"),
        ({"min_std": 1.5}, "model.min_std: found 1.5"),
        ({"initial_std": 0.01}, "model.initial_std: found 0.01, expected a number from 0.05 to 1.0"),
        ({"initial_std": 3.0}, "model.initial_std: found 3.0"),
    ],
)
def test_impossible_exploration_is_refused_by_name(mixed_team, setting, message):
    with pytest.raises(UserError, match=message):
        TeamActor(mixed_team, 8, 4, **setting)
