"""Per-agent V- and Q-networks."""

import pytest
import torch

from momalit.core.records import Sequence
from momalit.core.team import AgentSpec, TeamSpec
from momalit.nn.actors import TeamActor
from momalit.nn.agent_values import AgentValues

T, B, S = 5, 3, 4


def make_spec(discrete):
    bounds = ((), ()) if discrete else ((-1.0,) * 2, (1.0,) * 2)
    agents = (AgentSpec("a", (0, 1), 2, *bounds), AgentSpec("b", (2, 3), 2, *bounds))
    return TeamSpec("shapes", agents, S, discrete, 10, tuple(("state", i) for i in range(S)))


@pytest.fixture(params=[False, True], ids=["continuous", "discrete"])
def spec(request):
    return make_spec(request.param)


@pytest.mark.parametrize("gru_size", [0, 5])
def test_values_of_many_actions_equal_those_of_single_actions(spec, gru_size):
    values = AgentValues(spec, 2, 8, gru_size, of_actions=True)
    inputs, keep = torch.randn(2, T, B, 2 + (2 if gru_size else 0)), torch.ones(T, B, dtype=torch.bool)
    hidden_state = values.hidden_states(inputs, keep, 2, T)
    assert hidden_state.shape == (4, T - 2, B, gru_size or 8)
    action = torch.eye(2)[torch.randint(2, (6, T - 2, B, 2))] if spec.discrete else torch.rand(6, T - 2, B, 2, 2)
    result = values.action_values(hidden_state, action)
    assert result.shape == (2, 6, T - 2, B, 2)
    for n in range(6):
        torch.testing.assert_close(values.action_values(hidden_state, action[n : n + 1])[:, 0], result[:, n])
    # Network of copy 1, agent 0, evaluated layer by layer.
    net = 2
    if spec.discrete:
        hidden = torch.relu(hidden_state[net] @ values.hidden.weight[net] + values.hidden.bias[net])
        expected = ((hidden @ values.out.weight[net] + values.out.bias[net]) * action[4, :, :, 0]).sum(-1)
        torch.testing.assert_close(
            result[1, 4, ..., 0], values.all_values(hidden_state)[1, ..., 0, :].mul(action[4, :, :, 0]).sum(-1)
        )
    else:
        hidden = torch.relu(
            torch.cat([hidden_state[net], action[4, :, :, 0]], -1) @ values.hidden.weight[net] + values.hidden.bias[net]
        )
        expected = (hidden @ values.out.weight[net] + values.out.bias[net]).squeeze(-1)
    torch.testing.assert_close(result[1, 4, ..., 0], expected)


def test_frozen_networks_pass_gradients_to_the_action_only():
    values = AgentValues(make_spec(False), 2, 8, 0, of_actions=True)
    hidden_state = values.hidden_states(torch.randn(2, T, B, 2), torch.ones(T, B), 0, T).detach()
    action = torch.rand(1, T, B, 2, 2, requires_grad=True)
    values.action_values(hidden_state, action, frozen=True).sum().backward()
    assert action.grad is not None and action.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in values.parameters())


def test_shape_of_state_values(spec):
    values = AgentValues(spec, 1, 8, 5, of_actions=False)
    keep = torch.ones(T, B, dtype=torch.bool)
    assert values.state_values(values.hidden_states(torch.randn(2, T, B, 4), keep, 0, T)).shape == (1, T, B, 2)


@pytest.mark.parametrize("gru_size", [0, 5])
def test_only_recurrent_networks_depend_on_earlier_steps(gru_size):
    values = AgentValues(make_spec(False), 1, 8, gru_size, of_actions=False)
    inputs, keep = torch.randn(2, T, B, 2 + (2 if gru_size else 0)), torch.ones(T, B, dtype=torch.bool)
    changed = inputs.clone()
    changed[:, 0] += 1
    same = torch.equal(values.hidden_states(inputs, keep, 3, T), values.hidden_states(changed, keep, 3, T))
    assert same == (gru_size == 0)


@pytest.mark.parametrize("shared", [False, True])
def test_an_actor_without_gru_depends_on_the_current_step_only(spec, shared):
    actor = TeamActor(spec, width=8, gru_size=0, share_parameters=shared)
    state, previous = torch.randn(T, B, S), torch.randn(T, B, 2, 2)
    keep = torch.ones(T, B, dtype=torch.bool)
    policy, hidden_state = actor(Sequence(state, previous, keep))
    current, _ = actor(Sequence(state[3:4], torch.zeros(1, B, 2, 2), keep[3:4]), hidden_state[:, 2])
    action = policy.mode
    torch.testing.assert_close(policy.log_prob(action)[3], current.log_prob(action[3:4])[0])
