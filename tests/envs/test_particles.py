"""The particle environments as tasks: their actions against mpe2's own, the prey, and seeds."""

import sys

import numpy as np
import pytest
from mpe2 import simple_spread_v3
from pettingzoo.test import parallel_api_test, parallel_seed_test

from momalit.core.errors import UserError
from momalit.envs import make_env, team_spec
from momalit.envs.particles import Prey


@pytest.mark.parametrize("task", ["spread", "tag", "world"])
def test_pettingzoo_api(task):
    parallel_api_test(make_env(task), num_cycles=50)
    parallel_seed_test(lambda: make_env(task), num_cycles=20)


def test_forces_do_what_moves_do():
    ours, theirs = make_env("spread"), simple_spread_v3.parallel_env(continuous_actions=True)
    ours.reset(seed=1), theirs.reset(seed=1)
    force = {"agent_0": np.array([0.3, -0.7]), "agent_1": np.array([-1.0, 1.0]), "agent_2": np.array([0.0, 0.2])}
    moves = {"agent_0": [0, 0, 0.3, 0.7, 0], "agent_1": [0, 1, 0, 0, 1], "agent_2": [0, 0, 0, 0, 0.2]}
    moves = {name: np.array(move, np.float32) for name, move in moves.items()}
    for _ in range(3):
        seen, reward, *_ = ours.step(force)
        expected, expected_reward, *_ = theirs.step(moves)
    for name in force:
        assert seen[name] == pytest.approx(expected[name], abs=1e-6)
    assert reward == pytest.approx(expected_reward)


@pytest.mark.parametrize(("task", "agents", "sizes"), [("spread", 3, [2, 2, 2]), ("world", 4, [6, 2, 2, 2])])
def test_teams(task, agents, sizes):
    spec = team_spec(make_env(task), task, {})
    assert (spec.n_agents, [agent.action_size for agent in spec.agents], spec.horizon) == (agents, sizes, 25)
    assert not spec.discrete


def test_hunters_are_the_team_and_settings_reach_the_game():
    spec = team_spec(make_env("tag", n_agents=2, obstacles=0, horizon=7), "tag", {})
    assert spec.names == ("adversary_0", "adversary_1")
    assert spec.horizon == 7


def test_the_prey_runs_from_its_hunters_and_from_the_border():
    prey = Prey(landmarks=1, hunters=2)

    def flee(position, hunters):
        return prey({"agent_0": np.array([0, 0, *position, 0.2, 0.2, *np.ravel(hunters)], np.float32)})["agent_0"]

    assert flee((0, 0), [(0.1, 0), (0, 2)]) == pytest.approx([-1, -0.05])  # 10 and 1/2, from the nearer one first
    assert flee((1, 0), [(-0.5, 0), (-0.5, 0)]) == pytest.approx([-1, 0])  # the border is worse than two hunters
    assert flee((0, 0), [(0, 0), (0, 1)]) == pytest.approx([0, -1])  # a hunter in the woods is not there


def test_shaping_takes_the_distance_from_the_prey():
    plain, shaped = make_env("tag"), make_env("tag", shaping=0.5)
    plain.reset(seed=3), shaped.reset(seed=3)
    still = {name: np.zeros(2) for name in plain.agents}
    _, rewards, *_ = plain.step(still)
    _, less, *_ = shaped.step(still)
    places = {agent.name: agent.state.p_pos for agent in plain.unwrapped.world.agents}
    for name in still:
        distance = np.linalg.norm(places[name] - places["agent_0"])
        assert less[name] == pytest.approx(rewards[name] - 0.5 * distance)


@pytest.mark.parametrize("settings", [{"n_agents": 0}, {"horizon": "long"}, {"obstacles": -1}, {"shaping": -0.1}])
def test_invalid_settings_are_reported(settings):
    with pytest.raises(UserError, match=rf"env\.{next(iter(settings))}: found"):
        make_env("tag", **settings)


def test_without_mpe2_its_name_is_in_the_message(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpe2.simple_spread_v3", None)
    with pytest.raises(UserError, match="expected it installed: pip install mpe2"):
        make_env("spread")
