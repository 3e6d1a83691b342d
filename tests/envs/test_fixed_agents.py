"""A team inside a larger environment: the others act by their policy, and nothing of them reaches the team."""

import numpy as np
import pytest

from momalit.core.errors import UserError
from momalit.envs import FixedAgents, team_spec
from tests.envs.rescue import Rescue, forward


def place(env, agent):
    return env.env.place[agent]


def test_only_the_team_is_visible_and_the_others_act():
    env = FixedAgents(Rescue(), ["b"], forward)
    observations, infos = env.reset(seed=3)
    before = place(env, "a")
    assert (env.possible_agents, list(observations), infos) == (["b"], ["b"], {})
    observations, rewards, terminations, truncations, infos = env.step({"b": np.array([0.0])})
    assert place(env, "a") == before + 0.5
    for part in (observations, rewards, terminations, truncations):
        assert list(part) == ["b"]


def test_the_episode_goes_on_when_another_leaves_and_ends_with_the_team():
    env = FixedAgents(Rescue(), ["b"], forward)
    env.reset(seed=3)
    while "a" in env.env.agents:
        env.step({"b": np.array([0.0])})
    assert env.agents == ["b"]
    _, rewards, *_ = env.step({"b": np.array([0.0])})
    assert rewards == {"b": -1.0}
    env = FixedAgents(Rescue(), ["b"], lambda seen: {name: np.array([0.0]) for name in seen})
    env.reset(seed=3)
    while "b" in env.agents:
        env.step({"b": np.array([1.0])})
    assert env.agents == []
    assert env.env.agents == ["a"]


def test_a_class_of_policies_is_made_for_each_episode_with_its_seed():
    made = []

    class Wanderer:
        def __init__(self, seed):
            made.append(seed)
            self.random = np.random.default_rng(seed)

        def __call__(self, observations):
            return {name: self.random.uniform(-1, 1, 1) for name in observations}

    def path(seed):
        env = FixedAgents(Rescue(), ["b"], Wanderer)
        env.reset(seed=seed)
        return [env.step({"b": np.array([0.0])}) and place(env, "a") for _ in range(3)]

    assert path(1) == path(1) != path(2)
    assert made == [1, 1, 2]


def test_its_specification_is_that_of_the_team():
    env = FixedAgents(Rescue(), ["b"], forward)
    spec = team_spec(env, "rescue", {})
    assert spec.names == ("b",)
    assert spec.horizon == 12


def test_mistakes_are_reported():
    with pytest.raises(UserError, match=r"^team: found c, expected some of a, b$"):
        FixedAgents(Rescue(), ["b", "c"], forward)
    with pytest.raises(UserError, match=r"^team: found nobody, expected some of a, b$"):
        FixedAgents(Rescue(), [], forward)
    env = FixedAgents(Rescue(), ["b"], lambda _: {})
    env.reset(seed=0)
    with pytest.raises(UserError, match="found no action of a, expected one"):
        env.step({"b": np.array([0.0])})
