"""Unfinished episodes are restored by replaying seeds and actions."""

from __future__ import annotations

import pytest
import torch

from momalit.envs import make_env, team_spec
from momalit.envs.resumable_env import ResumableEnv
from momalit.envs.vector_env import VectorTeamEnv


def make_resumable(name: str, workers: int = 1, n: int = 3, **settings) -> ResumableEnv:
    env = make_env(name, **settings)
    spec = team_spec(env, name, settings)
    env.close()
    return ResumableEnv(VectorTeamEnv(spec, n, autoreset=True, workers=workers))


def random_actions(env: ResumableEnv, steps: int, seed: int = 0) -> torch.Tensor:
    spec, random = env.env.spec, torch.Generator().manual_seed(seed)
    sampled = torch.rand(steps, env.env.n_rows, spec.n_agents, spec.action_size, generator=random) * 2 - 1
    return torch.nn.functional.one_hot(sampled.argmax(-1), spec.action_size).float() if spec.discrete else sampled


@pytest.mark.parametrize("steps", [0, 4, 10, 11, 27])
@pytest.mark.parametrize("workers", [1, 2])
def test_replayed_game_continues_identically(steps, workers):
    original, restored = make_resumable("icg", workers), make_resumable("icg", workers)
    original.reset([3, 4, 5])
    actions = random_actions(original, steps + 15)
    states = [original.step(action).state for action in actions[:steps]]
    replayed = restored.replay(original.history())
    if steps:
        assert torch.equal(replayed, states[-1])
    for action in actions[steps:]:
        expected, found = original.step(action), restored.step(action)
        assert all(torch.equal(getattr(expected, name), getattr(found, name)) for name in vars(expected))
    assert torch.equal(restored.history()["actions"], original.history()["actions"])
    original.env.close()
    restored.env.close()


def test_replayed_robots_with_different_episode_lengths_continue_identically():
    original, restored = make_resumable("ant", n=2), make_resumable("ant", n=2)
    original.reset([7, 8])
    random = torch.Generator().manual_seed(0)
    lengths = set()
    for _ in range(400):  # some random actions end an episode
        step = original.step(torch.rand(2, 4, 2, generator=random) * 2 - 1)
        lengths.add(tuple(original.history()["lengths"].tolist()))
    history = original.history()
    assert any(a != b for a, b in lengths)
    assert history["episodes"].max() > 0
    assert torch.equal(restored.replay(history), step.state)
    action = torch.zeros(2, 4, 2)
    assert torch.equal(original.step(action).state, restored.step(action).state)


def test_history_is_at_most_one_episode_long():
    env = make_resumable("icg")
    env.reset([0, 1, 2])
    for action in random_actions(env, 60):
        env.step(action)
        assert len(env.history()["actions"]) <= env.env.spec.horizon
