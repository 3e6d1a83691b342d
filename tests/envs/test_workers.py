"""Rows in processes of their own: the same numbers, and an end that is heard of."""

import os

import numpy as np
import pytest
import torch
from gymnasium import spaces
from pettingzoo import ParallelEnv

from momalit.core.errors import UserError
from momalit.envs import VectorTeamEnv, make_env, team_spec
from momalit.envs.workers import VARIABLE, worker_count


def spec_of(name, **settings):
    return team_spec(make_env(name, **settings), name, settings)


def numbers(step):
    return torch.cat([value.reshape(len(step.reward), -1).double() for value in vars(step).values()], 1)


def test_a_row_does_not_depend_on_the_number_of_workers():
    spec = spec_of("reacher")
    envs = [VectorTeamEnv(spec, 5, autoreset=True, workers=workers) for workers in (1, 2, 9)]
    assert [len(env._workers._processes) if env._workers else 1 for env in envs] == [1, 2, 5]
    states = [env.reset([4, 5, 6, 7, 8]) for env in envs]
    assert all(torch.equal(state, states[0]) for state in states)
    generator = torch.Generator().manual_seed(0)
    for _ in range(105):  # two ends of an episode
        action = 2 * torch.rand(5, 2, 1, generator=generator) - 1
        steps = [env.step(action) for env in envs]
        assert all(torch.equal(numbers(step), numbers(steps[0])) for step in steps)
        assert [value.dtype for value in vars(steps[1]).values()] == [v.dtype for v in vars(steps[0]).values()]
    for env in envs:
        env.close()


class Fragile(ParallelEnv):
    """Breaks in one way or another when told to do more than 0.5."""

    possible_agents = ("one",)
    horizon = 9

    def __init__(self, way: str = "raise") -> None:
        self.way, self.agents = way, []

    def observation_space(self, agent):
        return spaces.Box(-9, 9, (1,))

    def action_space(self, agent):
        return spaces.Box(0.0, 1.0, (1,))

    def reset(self, seed=None, options=None):
        self.agents, self.seed = list(self.possible_agents), seed
        return {"one": np.array([seed], np.float32)}, {}

    def step(self, actions):
        # Only in a worker: asking for the specification plays at random.
        if self.way != "never" and actions["one"][0] > 0.5 and self.seed >= 100:
            if self.way == "die":
                os._exit(3)
            raise ValueError("it broke")
        return {"one": np.zeros(1, np.float32)}, {"one": 1.0}, {"one": False}, {"one": False}, {}


def fragile(way):
    return VectorTeamEnv(spec_of("tests.envs.test_workers:Fragile", way=way), 2, workers=2)


def test_what_breaks_in_a_worker_is_told_here():
    env = fragile("raise")
    assert env.reset([100, 101]).tolist() == [[100.0], [101.0]]
    with pytest.raises(RuntimeError, match=r"(?s)worker process of the environment failed.*ValueError: it broke"):
        env.step(torch.tensor([[[0.0]], [[1.0]]]))
    assert env.reset([102, 103]).tolist() == [[102.0], [103.0]]  # no answer of the failed step is left over
    assert env.step(torch.zeros(2, 1, 1)).reward.tolist() == [1.0, 1.0]
    env.close()


def test_a_worker_that_dies_ends_the_others():
    env = fragile("die")
    env.reset([100, 101])
    processes = env._workers._processes
    with pytest.raises(RuntimeError, match="ended unexpectedly"):
        env.step(torch.tensor([[[0.0]], [[1.0]]]))
    assert not any(process.is_alive() for process in processes)


@pytest.mark.parametrize("end", ["closed", "forgotten"])
def test_workers_end_with_their_environment(end):
    env = fragile("never")
    env.reset([100, 101])
    processes = env._workers._processes
    if end == "closed":
        env.close()
        env.close()
    del env
    assert [process.exitcode for process in processes] == [0, 0]


def test_how_many(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert (worker_count(None), worker_count(3)) == (1, 3)
    monkeypatch.setenv(VARIABLE, "")
    assert worker_count(None) == 1
    monkeypatch.setenv(VARIABLE, "2")
    assert (worker_count(None), worker_count(3)) == (2, 3)
    assert len(VectorTeamEnv(spec_of("icg"), 1).envs) == 1  # never more than rows
    for wrong in ("0", "all"):
        monkeypatch.setenv(VARIABLE, wrong)
        with pytest.raises(UserError, match=f"MOMALIT_WORKERS: found {wrong}, expected an integer of at least 1"):
            worker_count(None)
    with pytest.raises(UserError, match="workers: found -1, expected an integer of at least 1"):
        VectorTeamEnv(spec_of("icg"), 2, workers=-1)
