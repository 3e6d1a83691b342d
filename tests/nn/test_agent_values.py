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
def test_values_of_many_actions_are_those_of_each(spec, gru_size):
    values = AgentValues(spec, 2, 8, gru_size, of_actions=True)
    inputs, keep = torch.randn(2, T, B, 2 + (2 if gru_size else 0)), torch.ones(T, B, dtype=torch.bool)
    seen = values.hidden_states(inputs, keep, 2, T)
    assert seen.shape == (4, T - 2, B, gru_size or 8)
    action = torch.eye(2)[torch.randint(2, (6, T - 2, B, 2))] if spec.discrete else torch.rand(6, T - 2, B, 2, 2)
    found = values.actions(seen, action)
    assert found.shape == (2, 6, T - 2, B, 2)
    for n in range(6):
        torch.testing.assert_close(values.actions(seen, action[n : n + 1])[:, 0], found[:, n])
    # Network (copy 1, agent 0), by the definition of its layers.
    net = 2
    if spec.discrete:
        hidden = torch.relu(seen[net] @ values.hidden.weight[net] + values.hidden.bias[net])
        expected = ((hidden @ values.out.weight[net] + values.out.bias[net]) * action[4, :, :, 0]).sum(-1)
        torch.testing.assert_close(
            found[1, 4, ..., 0], values.every(seen)[1, ..., 0, :].mul(action[4, :, :, 0]).sum(-1)
        )
    else:
        hidden = torch.relu(
            torch.cat([seen[net], action[4, :, :, 0]], -1) @ values.hidden.weight[net] + values.hidden.bias[net]
        )
        expected = (hidden @ values.out.weight[net] + values.out.bias[net]).squeeze(-1)
    torch.testing.assert_close(found[1, 4, ..., 0], expected)


def test_frozen_networks_pass_the_gradient_to_the_action_alone():
    values = AgentValues(make_spec(False), 2, 8, 0, of_actions=True)
    seen = values.hidden_states(torch.randn(2, T, B, 2), torch.ones(T, B), 0, T).detach()
    action = torch.rand(1, T, B, 2, 2, requires_grad=True)
    values.actions(seen, action, frozen=True).sum().backward()
    assert action.grad is not None and action.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in values.parameters())


def test_state_values(spec):
    values = AgentValues(spec, 1, 8, 5, of_actions=False)
    keep = torch.ones(T, B, dtype=torch.bool)
    assert values.states(values.hidden_states(torch.randn(2, T, B, 4), keep, 0, T)).shape == (1, T, B, 2)


@pytest.mark.parametrize("gru_size", [0, 5])
def test_only_a_network_with_a_memory_depends_on_the_past(gru_size):
    values = AgentValues(make_spec(False), 1, 8, gru_size, of_actions=False)
    inputs, keep = torch.randn(2, T, B, 2 + (2 if gru_size else 0)), torch.ones(T, B, dtype=torch.bool)
    changed = inputs.clone()
    changed[:, 0] += 1
    same = torch.equal(values.hidden_states(inputs, keep, 3, T), values.hidden_states(changed, keep, 3, T))
    assert same == (gru_size == 0)


@pytest.mark.parametrize("shared", [False, True])
def test_an_actor_without_memory_acts_by_the_present_alone(spec, shared):
    actor = TeamActor(spec, width=8, gru_size=0, share_parameters=shared)
    state, previous = torch.randn(T, B, S), torch.randn(T, B, 2, 2)
    keep = torch.ones(T, B, dtype=torch.bool)
    policy, hidden_state = actor(Sequence(state, previous, keep))
    alone, _ = actor(Sequence(state[3:4], torch.zeros(1, B, 2, 2), keep[3:4]), hidden_state[:, 2])
    action = policy.mode
    torch.testing.assert_close(policy.log_prob(action)[3], alone.log_prob(action[3:4])[0])
