"""Agents that leave before the others: in environments, datasets, policies, world models and training."""

from __future__ import annotations

import json
import math
from pathlib import Path

import h5py
import pytest
import torch

from datamodules import OfflineDataModule, collect
from momalit.core.errors import UserError
from momalit.core.records import Rollout, Sequence
from momalit.core.team import PRESENT, TeamSpec
from momalit.envs import make_env, team_spec
from momalit.envs.vector_env import VectorTeamEnv
from momalit.nn.actors import TeamActor
from momalit.policies.mappo import MAPPOModule
from momalit.world_model.dynamics import ModelSpace
from tests.envs.rescue import Rescue, forward

NAME = "tests.envs.rescue:Rescue"


def spec(discrete: bool = False) -> TeamSpec:
    return team_spec(make_env(NAME, discrete=discrete), NAME, {"discrete": discrete})


@pytest.mark.parametrize("discrete", [False, True])
def test_the_state_says_who_is_there(discrete: bool) -> None:
    team = spec(discrete)
    assert [agent.present for agent in team.agents] == [2, 3]
    assert team.sources[2:] == ((PRESENT, 0), (PRESENT, 1))
    assert TeamSpec.from_dict(json.loads(json.dumps(team.to_dict()))) == team
    env = VectorTeamEnv(team, 1)
    state = env.reset([0])
    assert state[0, 2:].tolist() == [1, 1]
    run = torch.tensor([[0.0, 0, 1], [0, 1, 0]]) if discrete else torch.tensor([[1.0], [0.0]])
    states = [env.step(run[None]) for _ in range(12)]
    there = torch.stack([step.state[0, 2:] for step in states])
    assert there[:, 1].all()  # nobody else has left, and the end of the episode says nothing
    assert there[0, 0] == 1
    assert there[-1, 0] == 0
    assert float(states[-1].reward) == -0.5


def test_a_team_whose_agents_stay_is_as_before(icg) -> None:
    assert icg.spec.present_index() is None
    assert "present" not in icg.spec.to_dict()["agents"][0]


@pytest.mark.parametrize("discrete", [False, True])
def test_who_has_left_does_nothing(discrete: bool) -> None:
    team = spec(discrete)
    actor = TeamActor(team, width=8, gru_size=4)
    state = torch.tensor([[[0.1, 0.2, 1, 1], [0.1, 0.2, 0, 1]]])
    now = Sequence(state, torch.zeros(1, 2, 2, team.action_size), torch.ones(1, 2, dtype=torch.bool))
    policy, _ = actor(now)
    for action in (policy.sample(torch.Generator().manual_seed(0)), policy.mode):
        assert not action[0, 1, 0].any()
        actor.low.fill_(0.1)  # bounds that leave 0 out
        assert not actor.clip(action)[0, 1, 0].any()
        log_prob = policy.log_prob(action).detach()
        assert float(log_prob[0, 1, 0]) == 0
        assert (log_prob[0, 0] != 0).all()
    assert float(policy.entropy[0, 1, 0].detach()) == 0
    assert (policy.entropy[0, 0] != 0).all()


def test_nobody_comes_back_in_imagination() -> None:
    space = ModelSpace(spec())
    before = torch.tensor([[0.0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 1, 0]])
    after = torch.tensor([[9.0, 9, 0.4, 0.6], [9, 9, 1.0, 1.2], [9, 9, 0.9, -0.2]])
    expected = torch.tensor([[9.0, 9, 0, 1], [9, 9, 0, 1], [9, 9, 1, 0]])
    assert torch.equal(space.settle(before, after), expected)


def test_a_recording_has_no_actions_of_who_has_left(tmp_path: Path) -> None:
    collect(NAME, policy=forward, transitions=60, output=tmp_path / "walk")
    data = OfflineDataModule(str(tmp_path / "walk"), env={"name": NAME})
    trajectories = data.trajectories
    there = trajectories.state[trajectories.row, 2:].bool()
    assert not there[:, 0].all()
    assert there[:, 1].all()
    assert (trajectories.action[:, 0, 0] == there[:, 0]).all()
    assert trajectories.terminated[trajectories.last].all()
    assert (trajectories.reward == -there.float().mean(1)).all()
    assert Rescue.possible_agents == data.spec.names


def test_a_foreign_file_has_no_rows_of_who_has_left(tmp_path: Path) -> None:
    collect(NAME, policy=forward, transitions=60, output=tmp_path / "walk")
    own = OfflineDataModule(str(tmp_path / "walk"))
    folder = tmp_path / "walk/data"
    metadata = json.loads((folder / "metadata.json").read_text())
    del metadata["momalit"]
    (folder / "metadata.json").write_text(json.dumps(metadata))
    with h5py.File(folder / "main_data.hdf5", "r+") as file:
        for episode in file.values():
            there = episode["observations/state"][:-1, 2:] > 0.5
            for i, agent in enumerate("ab"):
                steps = int(there[:, i].sum())
                for key, rows in (("observations", steps + 1), ("actions", steps)):
                    values = episode[key][agent][:rows]
                    del episode[key][agent]
                    episode[key][agent] = values
            del episode["observations/state"]
    data = OfflineDataModule(str(tmp_path / "walk"), env={"name": NAME})
    assert data.spec.agents == own.spec.agents
    assert data.spec.sources == own.spec.sources
    for name in ("state", "action", "reward", "terminated", "truncated"):
        assert torch.equal(getattr(data.trajectories, name), getattr(own.trajectories, name)), name
    with h5py.File(folder / "main_data.hdf5", "r+") as file:
        values = file["episode_0/observations/a"][:-1]
        del file["episode_0/observations/a"]
        file["episode_0/observations/a"] = values
    with pytest.raises(UserError, match=r"episode_0/observations/a has shape .*, expected"):
        OfflineDataModule(str(tmp_path / "walk")).trajectories  # noqa: B018


def test_entropy_and_kl_are_those_of_agents_that_are_there() -> None:
    team = spec(discrete=True)
    module = MAPPOModule(team, horizon=1, n_rollouts=4, width=8, gru_size=0)
    state = torch.tensor([[0.1, 0.2, 1.0, 0.0], [0.1, 0.2, 0.0, 1.0]]).expand(2, 2, 4)
    nothing = torch.zeros(1, 2, dtype=torch.bool)
    policy = module.actor.distribution(
        module.actor.hidden_states(Sequence(state, torch.zeros(2, 2, 2, 3), ~nothing.expand(2, 2)))[:, :1], state[:1]
    )
    rollout = Rollout(
        state=state, previous_action=torch.zeros(2, 2, 2, 3), keep=~nothing.expand(2, 2), action=policy.mode,
        log_prob=policy.log_prob(policy.mode) - torch.tensor([[[0.1, 0.0], [0.0, 0.1]]]), reward=torch.zeros(1, 2),
        terminated=nothing, truncated=nothing, stopped=nothing, valid=~nothing, advantage=torch.zeros(1, 2),
    )  # fmt: skip
    module._actor_loss(rollout, policy)
    means = module.pop_means()
    assert float(means["policy/entropy"]) == pytest.approx(float(policy.entropy.detach().sum() / 2))
    assert float(means["policy/kl"]) == pytest.approx(math.expm1(0.1) - 0.1, rel=1e-3)
