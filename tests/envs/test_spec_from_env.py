from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from pettingzoo import ParallelEnv

from momalit.core.errors import UserError
from momalit.core.team import TeamSpec
from momalit.envs import VectorTeamEnv, make_env, references, team_spec
from momalit.envs.spaces import flatten_observation
from momalit.envs.spec_from_env import index_map
from tests.envs.test_vector_env import Relay


@pytest.fixture
def stock(monkeypatch) -> TeamSpec:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return team_spec(make_env("stock:Stock", horizon=12), "stock:Stock", {"horizon": 12})


def test_state_of_user_env_is_the_distinct_observation_columns(stock):
    buyer, seller = stock.agents
    price, store = buyer.observes
    assert seller.observes == (store, seller.observes[1], price)
    assert (buyer.action_size, seller.action_size, stock.discrete, stock.horizon) == (3, 2, True, 12)
    assert len(buyer.legal) == 3
    assert len(seller.legal) == 2
    assert not set(buyer.legal) & set(buyer.observes)
    assert stock.env == {"name": "stock:Stock", "horizon": 12}
    assert TeamSpec.from_dict(stock.to_dict()) == stock
    assert references(stock) is None


def test_vector_env_equals_user_env(stock):
    env = VectorTeamEnv(stock, 3)
    single = make_env(**stock.env)
    state = env.reset([5, 6, 7])
    observations, _ = single.reset(seed=5)
    rng = np.random.default_rng(0)
    legal_index = stock.legal_index()
    for time in range(12):
        for agent in stock.agents:
            expected = flatten_observation(single.observation_space(agent.name), observations[agent.name])
            assert state[0, list(agent.observes) + list(agent.legal)].numpy() == pytest.approx(expected)
        action, choices = torch.zeros(3, 2, 3), {}
        for row in range(3):
            for i in range(2):
                mask = [bool(state[row, c]) if c >= 0 else True for c in legal_index[i].tolist()]
                size = stock.agents[i].action_size
                choice = int(rng.choice(np.flatnonzero(mask[:size])))
                action[row, i, choice] = 1.0
                if row == 0:
                    choices[stock.names[i]] = choice
        step = env.step(action)
        observations, rewards, *_ = single.step(choices)
        state = step.state
        assert float(step.reward[0]) == pytest.approx(sum(rewards.values()) / 2, rel=1e-5)
        assert step.truncated.tolist() == [time == 11] * 3


def test_index_map_merges_constant_columns_only_in_equal_blocks():
    varying, other = np.arange(6.0)[:, None], np.arange(6.0)[:, None] ** 2
    constant = np.ones((6, 1))
    rows = {
        "state": np.hstack([varying, constant]),
        "same": np.hstack([varying, constant]),
        "mixed": np.hstack([constant, other, varying]),
        "constant": constant,
    }
    sources, observes, legal = index_map(rows, {"same": 2, "mixed": 3, "constant": 1})
    assert observes == {"same": (0, 1), "mixed": (2, 3, 0), "constant": (4,)}
    assert sources == (("state", 0), ("state", 1), ("mixed", 0), ("mixed", 1), ("constant", 0))
    assert legal == {"same": (), "mixed": (), "constant": ()}


class Endless(ParallelEnv):
    """Never ends and declares no horizon."""

    possible_agents = ("one", "two")
    second_action_space: spaces.Space = spaces.Discrete(2)

    def __init__(self) -> None:
        self.agents: list[str] = []

    def observation_space(self, agent):
        return spaces.Box(-1, 1, (1,))

    def action_space(self, agent):
        return spaces.Discrete(2) if agent == "one" else self.second_action_space

    def reset(self, seed=None, options=None):
        self.agents = list(self.possible_agents)
        return self._observe(), {}

    def step(self, actions):
        off = dict.fromkeys(self.agents, False)
        return self._observe(), dict.fromkeys(self.agents, 0.0), off, off, {}

    def _observe(self):
        return dict.fromkeys(self.agents, np.zeros(1, np.float32))


def test_agent_named_state_is_rejected():
    env = Endless()
    env.possible_agents = ("state", "two")
    with pytest.raises(UserError, match="found an agent called 'state'"):
        team_spec(env, "x", {})


def test_missing_horizon_is_rejected():
    with pytest.raises(UserError, match=r"env x: found no horizon \(an attribute horizon, max_cycles"):
        team_spec(Endless(), "x", {})


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Box(-np.inf, np.inf, (1,)), r"agent two: its action space .* is unbounded"),
        (
            spaces.MultiDiscrete([80, 80]),
            r"agent two: its action space .* has 6400 combinations, expected at",
        ),
        (spaces.Text(4), r"agent two: its action space is Text.*expected Discrete, MultiDiscrete, MultiBinary or Box"),
    ],
)
def test_unsupported_action_spaces_are_rejected(space, message):
    env = Endless()
    env.second_action_space, env.horizon = space, 5
    with pytest.raises(UserError, match=message):
        team_spec(env, "x", {})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("reachr", r"env\.name: found 'reachr'.*did you mean reacher\?"),
        ("nowhere.at.all:Env", r"env\.name: found 'nowhere\.at\.all:Env', which cannot be imported"),
        ("math:pi", r"env\.name: found 'math:pi', a float, expected a callable"),
        ("collections:OrderedDict", r"made a OrderedDict without possible_agents"),
    ],
)
def test_invalid_environment_names_are_rejected(name, message):
    with pytest.raises(UserError, match=message):
        make_env(name)


def test_an_agent_that_never_joins_is_named():
    class Absent(Relay):
        def reset(self, seed=None, options=None):
            observations, info = super().reset(seed, options)
            self.agents = ["first"]
            return {"first": observations["first"]}, info

    with pytest.raises(UserError, match=r"env relay: found no step of \d+ random ones at which \w+ was there"):
        team_spec(Absent(), "relay", {})
