"""A team in which one agent chooses and the other acts by a real number."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Normal

from datamodules import OfflineDataModule, collect
from momalit.baselines import IQLModule
from momalit.core.errors import UserError
from momalit.core.records import Sequence
from momalit.core.team import TeamSpec
from momalit.envs import make_env, team_spec
from momalit.envs.vector_env import VectorTeamEnv
from momalit.nn.actors import TeamActor
from momalit.nn.agent_inputs import AgentInputs
from tests.envs.crane import expert

NAME = "tests.envs.crane:Crane"


@pytest.fixture(scope="module")
def spec() -> TeamSpec:
    return team_spec(make_env(NAME), NAME, {})


def test_each_agent_has_a_kind(spec: TeamSpec) -> None:
    assert spec.mixed
    assert not spec.discrete
    assert [agent.discrete for agent in spec.agents] == [True, False]
    assert spec.action_low().tolist() == [[0, 0, 0], [-1, 0, 0]]
    assert spec.action_high().tolist() == [[1, 1, 1], [1, 0, 0]]
    assert TeamSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_inputs_leave_choices_unchanged(spec: TeamSpec) -> None:
    action = torch.tensor([[0.0, 1, 0], [0.5, 0, 0]])
    assert torch.equal(AgentInputs(spec).scaled(action), action)


def test_distribution_is_that_of_each_agent(spec: TeamSpec) -> None:
    torch.manual_seed(0)
    actor = TeamActor(spec, width=8, gru_size=4)
    for parameter in actor.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    state = torch.randn(1, 5, spec.state_size)
    now = Sequence(state, torch.zeros(1, 5, 2, 3), torch.ones(1, 5))
    policy, hidden = actor(now)
    scores = actor.head(hidden).movedim(0, -2)
    choice = Categorical(logits=scores[..., 0, :])
    real = Normal(torch.tanh(scores[..., 1, 0]), actor.log_std[1, 0].exp())
    action = policy.sample(torch.Generator().manual_seed(1))
    assert (action[..., 0, :].sum(-1) == 1).all()
    assert not action[..., 1, 1:].any()
    log_prob = policy.log_prob(action)
    torch.testing.assert_close(log_prob[..., 0], choice.log_prob(action[..., 0, :].argmax(-1)))
    torch.testing.assert_close(log_prob[..., 1], real.log_prob(action[..., 1, 0]))
    torch.testing.assert_close(policy.entropy, torch.stack([choice.entropy(), real.entropy()], -1))
    torch.testing.assert_close(policy.mode[..., 1, 0], real.mean)
    assert torch.equal(actor.clip(policy.mode)[..., 0, :], policy.mode[..., 0, :])


def test_environment_receives_actions_of_its_own_kind(spec: TeamSpec) -> None:
    env = VectorTeamEnv(spec, 2)
    state = env.reset([0, 1])
    action = torch.zeros(2, 2, 3)
    for row in range(2):
        columns = dict(zip(spec.names, ([spec.agents[0].observes], [spec.agents[1].observes]), strict=True))
        chosen = expert({name: state[row, list(index[0])].numpy() for name, index in columns.items()})
        action[row, 0, chosen["signaller"]], action[row, 1, 0] = 1, float(chosen["hook"][0])
    assert (env.step(action).reward > -1).all()


def test_recording_is_read_as_it_was_written(spec: TeamSpec, tmp_path: Path) -> None:
    collect(NAME, policy=expert, transitions=60, output=tmp_path / "data")
    data = OfflineDataModule(str(tmp_path / "data"), env={"name": NAME})
    assert data.spec == spec
    action = data.trajectories.action
    assert (action[:, 0].sum(-1) == 1).all()
    assert (action[:, 1, 0].abs() <= 1).all()
    assert (action[:, 1, 0] != 0).any()
    goal = data.trajectories.state[data.trajectories.row, spec.agents[0].observes[0]]
    assert torch.equal(action[:, 0].argmax(-1).float() - 1, goal)


def test_random_actions_are_of_each_kind(spec: TeamSpec, tmp_path: Path) -> None:
    collect(f"{NAME}/random", transitions=60, output=tmp_path / "data")
    action = OfflineDataModule(str(tmp_path / "data")).trajectories.action
    assert set(action[:, 0].argmax(-1).tolist()) == {0, 1, 2}
    assert (action[:, 0].sum(-1) == 1).all()
    assert len(np.unique(action[:, 1, 0])) > 20


def test_methods_that_cannot_say_so(spec: TeamSpec) -> None:
    with pytest.raises(UserError, match=r"model\.class_path: found IQLModule for the discrete and continuous actions"):
        IQLModule(spec)
