import numpy as np
import pytest
import torch
from gymnasium import spaces
from pettingzoo import ParallelEnv
from pettingzoo.utils import BaseParallelWrapper

from momalit.core.errors import UserError
from momalit.envs import VectorTeamEnv, make_env, team_spec
from momalit.envs.ant import Ant
from momalit.envs.reacher import Reacher


def spec_of(name, **settings):
    return team_spec(make_env(name, **settings), name, settings)


def test_rows_equal_single_environments_and_actions_are_clipped():
    spec = spec_of("reacher")
    env = VectorTeamEnv(spec, 3)
    singles = [make_env("reacher") for _ in range(3)]
    state = env.reset([4, 5, 6])
    for single, seed in zip(singles, (4, 5, 6), strict=True):
        single.reset(seed=seed)
    generator = torch.Generator().manual_seed(0)
    for time in range(50):
        assert state.numpy() == pytest.approx(np.stack([single.state() for single in singles]), abs=0)
        action = 3 * torch.randn(3, 2, 1, generator=generator)
        step = env.step(action)
        for row, single in enumerate(singles):
            clipped = action[row].clamp(-1, 1).numpy()
            _, rewards, _, truncations, _ = single.step({"agent_0": clipped[0], "agent_1": clipped[1]})
            assert float(step.reward[row]) == pytest.approx(rewards["agent_0"], rel=1e-6)
            assert bool(step.truncated[row]) == truncations["agent_0"] == (time == 49)
        state = step.state
        assert step.valid.all()
        assert not (step.terminated | step.began | step.stopped).any()
    assert (state.dtype, step.reward.dtype, step.valid.dtype) == (torch.float32, torch.float32, torch.bool)


class PlainAnt(Ant):
    """Overrides only ``step``, so that the vectorised environment uses dictionaries."""

    def step(self, actions):
        return super().step(actions)


class PlainReacher(Reacher):
    """Overrides only ``step``, as ``PlainAnt``."""

    def step(self, actions):
        return super().step(actions)


@pytest.mark.parametrize(
    ("plain", "settings", "steps"),
    [(PlainAnt, {"factoring": "2x4d"}, 40), (PlainAnt, {"observability": "full"}, 40), (PlainReacher, {}, 60)],
)
def test_step_joint_equals_step(monkeypatch, plain, settings, steps):
    import momalit.envs.factory as factory

    name = plain.__base__.__name__.lower()
    monkeypatch.setitem(factory.TASKS, "plain", plain)
    spec, plain_spec = spec_of(name, **settings), spec_of("plain", **settings)
    fast, slow = VectorTeamEnv(spec, 3, autoreset=True), VectorTeamEnv(plain_spec, 3, autoreset=True)
    assert (fast._use_step_joint, slow._use_step_joint) == (True, False)
    assert torch.equal(fast.reset([1, 2, 3]), slow.reset([1, 2, 3]))
    generator, ended = torch.Generator().manual_seed(0), False
    for time in range(steps):
        if name == "ant" and time == 5:  # a robot is unhealthy at this height
            for env in (fast.envs[1], slow.envs[1]):
                env._env.data.qpos[2] = 2.0
        action = 3 * torch.randn(3, spec.n_agents, spec.action_size, generator=generator)
        found, expected = fast.step(action), slow.step(action)
        assert all(torch.equal(a, b) for a, b in zip(vars(found).values(), vars(expected).values(), strict=True))
        ended |= bool((found.terminated | found.truncated).any())
    assert ended


def test_wrapper_of_step_is_used(monkeypatch):
    import momalit.envs.factory as factory

    class Doubled(BaseParallelWrapper):
        def step(self, actions):
            observations, rewards, *rest = super().step(actions)
            return observations, {agent: 2 * reward for agent, reward in rewards.items()}, *rest

    monkeypatch.setitem(factory.TASKS, "doubled", lambda: Doubled(Reacher()))
    env, doubled = VectorTeamEnv(spec_of("reacher"), 1), VectorTeamEnv(spec_of("doubled"), 1)
    assert hasattr(doubled.envs[0], "step_joint")
    env.reset([0])
    doubled.reset([0])
    zero_actions = torch.zeros(1, 2, 1)
    assert torch.equal(doubled.step(zero_actions).reward, 2 * env.step(zero_actions).reward)


def test_ended_rows_repeat_their_state():
    env = VectorTeamEnv(spec_of("icg", horizon=2), 2)
    env.reset([0, 1])
    action = torch.eye(2)[torch.zeros(2, 2, dtype=torch.long)]
    env.step(action)
    last = env.step(action)
    assert last.truncated.all()
    after = env.step(action)
    assert torch.equal(after.state, last.state)
    assert not (after.valid | after.truncated | after.terminated | after.began).any()
    assert not after.reward.any()


def test_autoreset_takes_one_invalid_step():
    env = VectorTeamEnv(spec_of("reacher"), 2, autoreset=True)
    env.reset([0, 1])
    zero_actions = torch.zeros(2, 2, 1)
    for _ in range(50):
        last = env.step(zero_actions)
    assert last.truncated.all()
    fresh = env.step(torch.ones(2, 2, 1))
    assert fresh.began.all()
    assert not (fresh.valid | fresh.truncated).any()
    assert not fresh.reward.any()
    assert not torch.equal(fresh.state[0, 4:6], last.state[0, 4:6])
    assert env.step(zero_actions).valid.all()


def test_autoreset_seeds_depend_only_on_the_row():
    spec = spec_of("reacher")
    pair, single = VectorTeamEnv(spec, 2, autoreset=True), VectorTeamEnv(spec, 1, autoreset=True)
    pair.reset([7, 8])
    single.reset([8])
    for _ in range(52):
        both, one = pair.step(torch.zeros(2, 2, 1)), single.step(torch.zeros(1, 2, 1))
        assert torch.equal(both.state[1], one.state[0])


class Push(ParallelEnv):
    """Records its actions and does not clip them."""

    possible_agents = ("one", "two")
    horizon = 4

    def __init__(self) -> None:
        self.agents, self.actions = [], {}

    def observation_space(self, agent):
        return spaces.Box(-9, 9, (1,))

    def action_space(self, agent):
        return spaces.Box(-1.0, 2.0, (1, 2), np.float64) if agent == "one" else spaces.Box(-0.5, 0.5, (1,))

    def reset(self, seed=None, options=None):
        self.agents = list(self.possible_agents)
        self.rng = np.random.default_rng(seed)
        return self._observe(), {}

    def step(self, actions):
        self.actions, off = actions, dict.fromkeys(self.agents, False)
        return self._observe(), dict.fromkeys(self.agents, 0.0), off, off, {}

    def _observe(self):
        return {agent: self.rng.normal(size=1).astype(np.float32) for agent in self.agents}


def test_actions_are_clipped_and_converted_to_the_action_space(monkeypatch):
    import momalit.envs.factory as factory

    monkeypatch.setitem(factory.TASKS, "push", Push)
    env = VectorTeamEnv(spec_of("push"), 1)
    env.reset([0])
    env.step(torch.tensor([[[-5.0, 5.0], [0.7, 99.0]]]))
    received = env.envs[0].actions
    assert received["one"].tolist() == [[-1.0, 2.0]]
    assert received["two"].tolist() == [0.5]
    assert (received["one"].dtype, received["two"].dtype) == (np.float64, np.float32)


class Relay(ParallelEnv):
    """``first`` leaves after one step and ``second`` after two, which ends the episode."""

    possible_agents = ("first", "second")
    horizon = 9
    limit = False

    def __init__(self, ends: str = "terminate") -> None:
        self.ends, self.agents = ends, []

    def observation_space(self, agent):
        return spaces.Box(-9, 9, (1,))

    def action_space(self, agent):
        return spaces.Discrete(2, start=3)

    def reset(self, seed=None, options=None):
        self.agents, self.time = list(self.possible_agents), 0
        return self._observe(), {}

    def step(self, actions):
        assert set(actions) == set(self.agents)
        assert set(actions.values()) <= {3, 4}
        live, self.time = list(self.agents), self.time + 1
        leaving = {agent: agent == "first" or self.time >= 2 for agent in live} if self.ends != "never" else {}
        left = {agent: leaving.get(agent, False) for agent in live}
        off = dict.fromkeys(live, False)
        observations = self._observe()
        self.agents = [agent for agent in live if not left[agent]]
        ends = (left, off) if self.ends == "terminate" else (off, left)
        return observations, dict.fromkeys(live, 1.0), *ends, {}

    def _observe(self):
        return {agent: np.array([self.time + 0.5 * (agent == "second")], np.float32) for agent in self.agents}


@pytest.fixture
def relay(monkeypatch):
    import momalit.envs.factory as factory

    monkeypatch.setitem(factory.TASKS, "relay", Relay)
    return lambda **settings: spec_of("relay", **settings)


@pytest.mark.parametrize("ends", ["terminate", "truncate"])
def test_agents_may_leave_before_the_end(relay, ends):
    env = VectorTeamEnv(relay(ends=ends), 1)
    env.reset([0])
    action = torch.eye(2)[torch.tensor([[1, 0]])]
    first, second = env.step(action), env.step(action)
    assert float(first.reward) == 1.0
    assert not bool(first.terminated | first.truncated)
    assert float(second.reward) == 0.5  # only one of two agents remains
    assert bool(second.terminated) == (ends == "terminate")
    assert bool(second.truncated) == (ends == "truncate")
    # The column of the agent that left keeps its value, and the last two say who is there.
    assert second.state.tolist() == [[1.0, 2.5, 0.0, 1.0]]


def test_an_episode_knows_nothing_of_the_one_before(relay):
    env = VectorTeamEnv(relay(), 1)
    env.reset([0])
    env.step(torch.eye(2)[torch.tensor([[1, 0]])])
    late = env.envs[0].reset

    def without_second(seed=None):
        observations, info = late(seed=seed)
        env.envs[0].agents.remove("second")
        return {"first": observations["first"] + 3}, info

    env.envs[0].reset = without_second
    assert env.reset([0]).tolist() == [[3.0, 0.0, 1.0, 0.0]]


def test_env_without_truncation_is_truncated_at_its_horizon(relay):
    env = VectorTeamEnv(relay(ends="never"), 1)
    env.reset([0])
    action = torch.eye(2)[torch.tensor([[0, 0]])]
    steps = [env.step(action) for _ in range(10)]
    assert [bool(step.truncated) for step in steps] == [False] * 8 + [True, False]
    assert not bool(steps[-1].valid)


def test_invalid_arguments_are_rejected():
    spec = spec_of("icg")
    env = VectorTeamEnv(spec, 2)
    with pytest.raises(UserError, match="seeds: found 1, expected one for each of 2 rows"):
        env.reset([0])
    env.reset([0, 1])
    with pytest.raises(UserError, match=r"action: found shape \(2, 2\), expected \(2, 2, 2\)"):
        env.step(torch.zeros(2, 2))
    with pytest.raises(UserError, match="n_rows: found 0"):
        VectorTeamEnv(spec, 0)
