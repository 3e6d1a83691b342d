"""Agents that act alone do what they do in the team, over whole episodes."""

from __future__ import annotations

import pytest
import torch

from momalit.core.records import Sequence
from momalit.nn.actors import TeamActor
from momalit.nn.agent_policy import AgentPolicy


@pytest.mark.parametrize("gru_size", [0, 6])
@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_agents_alone_do_what_they_do_in_the_team(kind, share, gru_size, icg, reacher) -> None:
    data = icg if kind == "discrete" else reacher
    torch.manual_seed(0)
    actor = TeamActor(data.spec, width=8, gru_size=gru_size, share_parameters=share).eval()
    actor.inputs.standardizer.fit(data.train.state)
    for parameter in actor.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    agents = [AgentPolicy(actor, i) for i in range(data.spec.n_agents)]
    previous = torch.zeros(1, 5, data.spec.n_agents, data.spec.action_size)
    hidden = None
    own = [torch.zeros(5, agent.hidden_size) for agent in agents]
    for t in range(12):
        state = data.train.state[t * 5 : t * 5 + 5][None]
        keep = torch.full((1, 5), float(t > 0))
        with torch.no_grad():
            policy, states = actor(Sequence(state, previous, keep), hidden)
        team = actor.clip(policy.mode)
        for i, agent in enumerate(agents):
            size = agent.action_size
            observation = state[0][:, list(data.spec.agents[i].observes)]
            action, own[i] = agent(observation, previous[0, :, i, :size], own[i])
            torch.testing.assert_close(action, team[0, :, i, :size], atol=1e-5, rtol=1e-5)
        previous, hidden = team, states[:, -1] if gru_size else None
