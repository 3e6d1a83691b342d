"""The team's policies: padding, masks, bounds, hidden states."""

import dataclasses

import pytest
import torch

from momalit.core.errors import UserError
from momalit.core.records import Sequence
from momalit.nn.actors import TeamActor
from momalit.nn.agent_inputs import AgentInputs

TIME, BATCH = 5, 6


def make_sequence(spec, seed=0):
    torch.manual_seed(seed)
    previous = torch.randn(TIME, BATCH, spec.n_agents, spec.action_size) * spec.action_mask()
    keep = torch.rand(TIME, BATCH) > 0.2
    return Sequence(torch.randn(TIME, BATCH, spec.state_size), previous, keep)


def with_large_head_weights(actor):
    """Enlarges the head's weights, which are initially so small that all outputs are nearly equal."""
    actor.head.weight.data.normal_(0, 1.0)
    return actor


def test_inputs_are_gathered_scaled_and_padded(mixed_team):
    inputs = AgentInputs(mixed_team)
    inputs.standardizer.mean.fill_(1.0)
    inputs.standardizer.std.fill_(2.0)
    state = torch.tensor([3.0, 5.0, 7.0, 9.0, 11.0])
    previous = torch.tensor([[0.5, 0.0], [1.0, 10.0]])
    result = inputs(state, previous)
    # a: columns 3, 1, padding; its bounds [-1, 1] leave the action as is. b: columns 0, 2, 4; bounds [-2, 2], [0, 10].
    torch.testing.assert_close(result, torch.tensor([[4.0, 2.0, 0.0, 0.5, 0.0], [1.0, 3.0, 5.0, 0.5, 1.0]]))


@pytest.mark.parametrize("shared", [False, True])
def test_shapes(mixed_team, shared):
    actor = TeamActor(mixed_team, 8, 4, shared)
    policy, hidden_state = actor(make_sequence(mixed_team))
    assert policy.mode.shape == (TIME, BATCH, 2, 2)
    assert policy.log_prob(policy.mode).shape == (TIME, BATCH, 2)
    assert policy.entropy.shape == (TIME, BATCH, 2)
    assert hidden_state.shape == (2, TIME, BATCH, 4)


@pytest.mark.parametrize("shared", [False, True])
def test_policies_ignore_what_their_agent_does_not_observe(mixed_team, shared):
    actor = with_large_head_weights(TeamActor(mixed_team, 8, 4, shared))
    sequence = make_sequence(mixed_team)
    first = actor(sequence)[0].mean
    state = sequence.state.clone()
    state[..., [0, 2, 4]] += 10  # a does not observe these columns
    previous_action = sequence.previous_action.clone()
    previous_action[..., 1, :] += 3
    second = actor(dataclasses.replace(sequence, state=state, previous_action=previous_action))[0].mean
    assert torch.equal(first[..., 0, :], second[..., 0, :])
    assert not torch.allclose(first[..., 1, :], second[..., 1, :])


@pytest.mark.parametrize("shared", [False, True])
def test_padding_has_no_effect(mixed_team, shared):
    actor = with_large_head_weights(TeamActor(mixed_team, 8, 4, shared))
    sequence = make_sequence(mixed_team)
    first, _ = actor(sequence)
    # Padded observation components have index 0; the second action component of a is padding.
    previous_action = sequence.previous_action.clone()
    previous_action[..., 0, 1] = 1e3
    state = sequence.state.clone()
    state[..., 0] = 1e3
    second, _ = actor(dataclasses.replace(sequence, state=state, previous_action=previous_action))
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
    mean = actor(make_sequence(mixed_team))[0].mean
    low, high = mixed_team.action_low(), mixed_team.action_high()
    assert (mean >= low).all()
    assert (mean <= high).all()
    assert (mean[..., 1, 1].min() < 1) & (mean[..., 1, 1].max() > 9)
    clipped = actor.clip(mean + 100 * torch.randn_like(mean))
    assert (clipped >= low).all()
    assert (clipped <= high).all()


def test_initial_standard_deviation_is_scaled_to_the_action_range(mixed_team):
    std = TeamActor(mixed_team, 8, 4, initial_std=0.3, min_std=0.05, max_std=1.0).log_std.exp()
    torch.testing.assert_close(std[0, 0], torch.tensor(0.3))
    torch.testing.assert_close(std[1], torch.tensor([0.6, 1.5]))


@pytest.mark.parametrize(("raw", "fraction"), [(100.0, 1.0), (-100.0, 0.05)])
def test_standard_deviation_is_bounded(mixed_team, raw, fraction):
    actor = TeamActor(mixed_team, 8, 4, min_std=0.05, max_std=1.0)
    actor.raw_std.data.fill_(raw)
    torch.testing.assert_close(actor.log_std.exp()[1], torch.tensor([2.0 * fraction, 5.0 * fraction]))


def test_action_masks_are_read_from_the_state(discrete_team):
    actor = with_large_head_weights(TeamActor(discrete_team, 8, 4))
    sequence = make_sequence(discrete_team)
    state = sequence.state.clone()
    state[..., 2:] = 0
    state[..., 3] = 1  # only the second action of b is legal
    policy, _ = actor(dataclasses.replace(sequence, state=state))
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        sample = policy.sample(generator)
        assert torch.equal(sample[..., 1, :], torch.tensor([0.0, 1.0, 0.0]).expand(TIME, BATCH, 3))
        assert sample[..., 0, 2].max() == 0  # a has two actions
    assert policy.sample(generator)[..., 0, :2].sum(-1).min() == 1
    assert policy.entropy[..., 1].abs().max() == 0


def test_action_masks_differ_per_state_and_predicted_ones_are_rounded(discrete_team):
    actor = TeamActor(discrete_team, 8, 4)
    state = torch.zeros(2, 5)
    state[0, 2:] = torch.tensor([0.9, 0.1, 0.1])
    state[1, 2:] = torch.tensor([0.4, 0.6, 0.7])
    policy = actor.distribution(torch.zeros(2, 2, 4), state)
    assert (policy.logits.exp() > 1e-6)[:, 1].tolist() == [[True, False, False], [False, True, True]]


def test_a_mask_without_legal_actions_is_ignored(discrete_team):
    actor = TeamActor(discrete_team, 8, 4)
    policy = actor.distribution(torch.zeros(2, 7, 4), torch.zeros(7, 5))
    torch.testing.assert_close(policy.logits[:, 1].exp(), torch.full((7, 3), 1 / 3))
    torch.testing.assert_close(policy.logits[:, 0].exp(), torch.tensor([0.5, 0.5, 0.0]).expand(7, 3))


@pytest.mark.parametrize("shared", [False, True])
def test_running_step_by_step_equals_running_the_whole_sequence(discrete_team, shared):
    actor = with_large_head_weights(TeamActor(discrete_team, 8, 4, shared))
    sequence = make_sequence(discrete_team)
    whole, _ = actor(sequence)
    hidden_state = None
    for t in range(TIME):
        now = sequence.map(lambda x, t=t: x[t : t + 1])
        policy, hidden_state = actor(now, hidden_state)
        hidden_state = hidden_state[:, -1]
        torch.testing.assert_close(policy.logits[0], whole.logits[t])


def test_a_shared_network_has_one_set_of_weights_and_distinguishes_agents(mixed_team):
    shared, separate = TeamActor(mixed_team, 8, 4, share_parameters=True), TeamActor(mixed_team, 8, 4)
    assert shared.trunk.gru.hidden.weight.shape[0] == 1
    assert separate.trunk.gru.hidden.weight.shape[0] == 2
    sequence = make_sequence(mixed_team)
    # Both agents receive the same input.
    state = torch.zeros_like(sequence.state)
    hidden_state = shared.hidden_states(Sequence(state, torch.zeros_like(sequence.previous_action), sequence.keep))
    assert not torch.allclose(hidden_state[0], hidden_state[1])


def test_a_shared_network_has_a_hidden_state_per_agent(mixed_team):
    actor = TeamActor(mixed_team, 8, 4, share_parameters=True)
    sequence = make_sequence(mixed_team)
    first = actor.hidden_states(sequence)
    changed = sequence.state.clone()
    changed[0, 2, 0] += 5  # observed by b in batch entry 2
    second = actor.hidden_states(dataclasses.replace(sequence, state=changed, keep=torch.ones_like(sequence.keep)))
    first = actor.hidden_states(dataclasses.replace(sequence, keep=torch.ones_like(sequence.keep)))
    differs = (first != second).any(-1).any(1)  # (A, B)
    expected = torch.zeros(2, BATCH, dtype=torch.bool)
    expected[1, 2] = True
    assert torch.equal(differs, expected)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"min_std": 0.0}, "model.min_std: found 0.0, expected a number above 0 and below 1"),
        ({"min_std": 1.5}, "model.min_std: found 1.5"),
        ({"initial_std": 0.01}, "model.initial_std: found 0.01, expected a number from 0.05 to 1.0"),
        ({"initial_std": 3.0}, "model.initial_std: found 3.0"),
        ({"initial_std": None}, "model.initial_std: found null, expected a number above 0"),
    ],
)
def test_invalid_standard_deviations_raise_an_error_that_names_them(mixed_team, setting, message):
    with pytest.raises(UserError, match=message):
        TeamActor(mixed_team, 8, 4, **setting)
