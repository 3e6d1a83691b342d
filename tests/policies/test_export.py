"""Exported agents, run one by one with onnxruntime and numpy, act as the team does over whole episodes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from momalit.core.records import Sequence
from momalit.nn.actors import TeamActor
from momalit.policies.export import export_team
from momalit.policies.run_team import Team


def team_with(data, gru_size: int, masked: bool) -> TeamActor:
    spec = data.spec
    if masked:  # the last columns of the state say which actions are legal
        agents = tuple(dataclasses.replace(agent, legal=(2, 3)) for agent in spec.agents)
        spec = dataclasses.replace(spec, agents=agents)
    torch.manual_seed(0)
    actor = TeamActor(spec, width=8, gru_size=gru_size).eval()
    actor.inputs.standardizer.fit(data.train.state)
    for parameter in actor.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return actor


@pytest.mark.parametrize(("kind", "gru_size"), [("continuous", 6), ("discrete", 6), ("masked", 6), ("continuous", 0)])
def test_exported_agents_act_as_the_team_over_whole_episodes(kind, gru_size, icg, reacher, tmp_path: Path) -> None:
    data = reacher if kind == "continuous" else icg
    actor = team_with(data, gru_size, kind == "masked")
    spec = actor.spec
    export_team(actor, tmp_path, {"seed": 0})
    team = Team(tmp_path)
    for episode in range(3):
        team.reset()
        previous, hidden = torch.zeros(1, 1, spec.n_agents, spec.action_size), None
        begin, length = int(data.train.first[episode]) + episode, int(data.train.lengths[episode])
        for t in range(length):
            state = data.train.state[begin + t]
            with torch.no_grad():
                policy, states = actor(Sequence(state[None, None], previous, torch.full((1, 1), float(t > 0))), hidden)
            expected = actor.clip(policy.mode)
            own = {agent.name: state[list(agent.observes)].numpy() for agent in spec.agents}
            legal = {agent.name: state[list(agent.legal)].numpy() for agent in spec.agents if agent.legal}
            actions = team.act(own, legal)
            for i, agent in enumerate(spec.agents):
                wanted = expected[0, 0, i, : agent.action_size]
                if spec.discrete:
                    assert actions[agent.name] == int(wanted.argmax())
                else:
                    np.testing.assert_allclose(actions[agent.name], wanted.numpy(), atol=1e-5)
            previous, hidden = expected, states[:, -1] if gru_size else None


def test_torch_export_gives_the_same_actions(reacher, tmp_path: Path) -> None:
    actor = team_with(reacher, 6, masked=False)
    (agent, _) = export_team(actor, tmp_path, {}, ["torch"])
    loaded = torch.export.load(tmp_path / "agent_0.pt2").module()
    arguments = (torch.randn(7, agent.observation_size), torch.randn(7, 1), torch.randn(7, 6))
    for one, other in zip(loaded(*arguments), agent(*arguments), strict=True):
        torch.testing.assert_close(one, other)
    assert not (tmp_path / "run_team.py").exists()
    described = json.loads((tmp_path / "team.json").read_text())["agents"][0]
    assert described["observation_size"] == len(described["observation"]) == agent.observation_size
    assert "torch.export.load" in (tmp_path / "README.md").read_text()


def test_an_agent_without_an_observation_has_left(icg, tmp_path: Path) -> None:
    actor = team_with(icg, 6, masked=False)
    export_team(actor, tmp_path, {"seed": 0})
    first, *others = (agent.name for agent in actor.spec.agents)
    team = Team(tmp_path)
    observations = {name: np.zeros(len(actor.spec.agents[0].observes), np.float32) for name in (first, *others)}
    assert set(team.act(observations)) == {first, *others}
    del observations[first]
    assert set(team.act(observations)) == set(others)
