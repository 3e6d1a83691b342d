"""Episodes are taken up again where they were, by their seeds and actions."""

from __future__ import annotations

import pytest
import torch

from momalit.envs import make_env, team_spec
from momalit.envs.resumable_env import ResumableEnv
from momalit.envs.vector_env import VectorTeamEnv


def rows(name: str, workers: int = 1, n: int = 3, **settings) -> ResumableEnv:
    env = make_env(name, **settings)
    spec = team_spec(env, name, settings)
    env.close()
    return ResumableEnv(VectorTeamEnv(spec, n, autoreset=True, workers=workers))


def actions(env: ResumableEnv, steps: int, seed: int = 0) -> torch.Tensor:
    spec, random = env.env.spec, torch.Generator().manual_seed(seed)
    drawn = torch.rand(steps, env.env.n_rows, spec.n_agents, spec.action_size, generator=random) * 2 - 1
    return torch.nn.functional.one_hot(drawn.argmax(-1), spec.action_size).float() if spec.discrete else drawn


@pytest.mark.parametrize("steps", [0, 4, 10, 11, 27])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_game_goes_on_where_it_was(steps, workers):
    one, other = rows("icg", workers), rows("icg", workers)
    one.reset([3, 4, 5])
    taken = actions(one, steps + 15)
    states = [one.step(action).state for action in taken[:steps]]
    reached = other.replay(one.history())
    if steps:
        assert torch.equal(reached, states[-1])
    for action in taken[steps:]:
        a, b = one.step(action), other.step(action)
        assert all(torch.equal(getattr(a, name), getattr(b, name)) for name in vars(a))
    assert torch.equal(other.history()["actions"], one.history()["actions"])
    one.env.close()
    other.env.close()


def test_a_robot_goes_on_where_it_was_with_rows_of_different_lengths():
    one, other = rows("ant", n=2), rows("ant", n=2)
    one.reset([7, 8])
    random = torch.Generator().manual_seed(0)
    lengths = set()
    for _ in range(400):  # random actions throw it over now and then
        step = one.step(torch.rand(2, 4, 2, generator=random) * 2 - 1)
        lengths.add(tuple(one.history()["lengths"].tolist()))
    history = one.history()
    assert any(a != b for a, b in lengths)
    assert history["episodes"].max() > 0
    assert torch.equal(other.replay(history), step.state)
    action = torch.zeros(2, 4, 2)
    assert torch.equal(one.step(action).state, other.step(action).state)


def test_no_more_is_kept_than_an_episode_is_long():
    env = rows("icg")
    env.reset([0, 1, 2])
    for action in actions(env, 60):
        env.step(action)
        assert len(env.history()["actions"]) <= env.env.spec.horizon
