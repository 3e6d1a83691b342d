"""Worker processes: results equal those of one process, and failures are reported."""

import os

import numpy as np
import pytest
import torch
from gymnasium import spaces
from pettingzoo import ParallelEnv

from momalit.core.errors import UserError
from momalit.envs import VectorTeamEnv, make_env, team_spec
from momalit.envs.workers import WORKERS_VARIABLE, worker_count


def spec_of(name, **settings):
    return team_spec(make_env(name, **settings), name, settings)


def flattened(step):
    return torch.cat([value.reshape(len(step.reward), -1).double() for value in vars(step).values()], 1)


def test_rows_are_independent_of_the_number_of_workers():
    spec = spec_of("reacher")
    envs = [VectorTeamEnv(spec, 5, autoreset=True, workers=workers) for workers in (1, 2, 9)]
    assert [len(env._workers._processes) if env._workers else 1 for env in envs] == [1, 2, 5]
    states = [env.reset([4, 5, 6, 7, 8]) for env in envs]
    assert all(torch.equal(state, states[0]) for state in states)
    generator = torch.Generator().manual_seed(0)
    for _ in range(105):  # two episode ends
        action = 2 * torch.rand(5, 2, 1, generator=generator) - 1
        steps = [env.step(action) for env in envs]
        assert all(torch.equal(flattened(step), flattened(steps[0])) for step in steps)
        assert [value.dtype for value in vars(steps[1]).values()] == [v.dtype for v in vars(steps[0]).values()]
    for env in envs:
        env.close()


class Fragile(ParallelEnv):
    """Fails as ``failure`` says when its action exceeds 0.5."""

    possible_agents = ("one",)
    horizon = 9

    def __init__(self, failure: str = "raise") -> None:
        self.failure, self.agents = failure, []

    def observation_space(self, agent):
        return spaces.Box(-9, 9, (1,))

    def action_space(self, agent):
        return spaces.Box(0.0, 1.0, (1,))

    def reset(self, seed=None, options=None):
        self.agents, self.seed = list(self.possible_agents), seed
        return {"one": np.array([seed], np.float32)}, {}

    def step(self, actions):
        # Seeds below 100 are those of the random episodes of team_spec, which must not fail.
        if self.failure != "never" and actions["one"][0] > 0.5 and self.seed >= 100:
            if self.failure == "die":
                os._exit(3)
            raise ValueError("broken")
        return {"one": np.zeros(1, np.float32)}, {"one": 1.0}, {"one": False}, {"one": False}, {}


def fragile(failure):
    return VectorTeamEnv(spec_of("tests.envs.test_workers:Fragile", failure=failure), 2, workers=2)


def test_exception_in_a_worker_is_raised_in_the_main_process():
    env = fragile("raise")
    assert env.reset([100, 101]).tolist() == [[100.0], [101.0]]
    with pytest.raises(RuntimeError, match=r"(?s)worker process of the environment failed.*ValueError: broken"):
        env.step(torch.tensor([[[0.0]], [[1.0]]]))
    assert env.reset([102, 103]).tolist() == [[102.0], [103.0]]  # no result of the failed step is pending
    assert env.step(torch.zeros(2, 1, 1)).reward.tolist() == [1.0, 1.0]
    env.close()


def test_death_of_a_worker_stops_the_others():
    env = fragile("die")
    env.reset([100, 101])
    processes = env._workers._processes
    with pytest.raises(RuntimeError, match="ended unexpectedly"):
        env.step(torch.tensor([[[0.0]], [[1.0]]]))
    assert not any(process.is_alive() for process in processes)


@pytest.mark.parametrize("end", ["closed", "deleted"])
def test_workers_end_with_their_environment(end):
    env = fragile("never")
    env.reset([100, 101])
    processes = env._workers._processes
    if end == "closed":
        env.close()
        env.close()
    del env
    assert [process.exitcode for process in processes] == [0, 0]


def test_number_of_workers(monkeypatch):
    monkeypatch.delenv(WORKERS_VARIABLE, raising=False)
    assert (worker_count(None), worker_count(3)) == (1, 3)
    monkeypatch.setenv(WORKERS_VARIABLE, "")
    assert worker_count(None) == 1
    monkeypatch.setenv(WORKERS_VARIABLE, "2")
    assert (worker_count(None), worker_count(3)) == (2, 3)
    assert len(VectorTeamEnv(spec_of("icg"), 1).envs) == 1  # never more workers than rows
    for invalid in ("0", "all"):
        monkeypatch.setenv(WORKERS_VARIABLE, invalid)
        with pytest.raises(UserError, match=f"MOMALIT_WORKERS: found {invalid}, expected an integer of at least 1"):
            worker_count(None)
    with pytest.raises(UserError, match="workers: found -1, expected an integer of at least 1"):
        VectorTeamEnv(spec_of("icg"), 2, workers=-1)
