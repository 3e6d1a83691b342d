"""The ridge game: rewards, references and recorded behaviours against values worked out by hand."""

import numpy as np
import pytest
import torch
from pettingzoo.test import parallel_api_test, parallel_seed_test

from datamodules import collect, read_dataset
from momalit.core.errors import UserError
from momalit.envs import make_env, references, team_spec


@pytest.mark.parametrize("settings", [{}, {"n_agents": 3, "observability": "own"}])
def test_pettingzoo_api(settings):
    parallel_api_test(make_env("ridges", **settings), num_cycles=50)
    parallel_seed_test(lambda: make_env("ridges", **settings), num_cycles=20)


@pytest.mark.parametrize(
    ("actions", "reward"),
    [([0.5, 0.5], 1.0), ([-0.3, -0.7], 1.0), ([0.5, -0.5], np.exp(-50 / 9)), ([1.0, 0.3], np.exp(-0.5))],
)
def test_rewards_equal_hand_computed_values(actions, reward):
    env = make_env("ridges")
    env.reset()
    chosen = {f"agent_{i}": np.array([action], np.float32) for i, action in enumerate(actions)}
    observations, rewards, *_ = env.step(chosen)
    assert list(rewards.values()) == pytest.approx([reward] * 2, rel=1e-4)
    assert observations["agent_1"] == pytest.approx(np.array(actions, np.float32))


@pytest.mark.parametrize("n_agents", [2, 5])
def test_random_reference_equals_a_sample(n_agents):
    env = make_env("ridges", n_agents=n_agents)
    mean = np.random.default_rng(0).uniform(-1, 1, (400_000, n_agents)).mean(1)
    sampled = 10 * np.exp(-(((np.abs(mean) - 0.5) / 0.15) ** 2) / 2)
    found = references(team_spec(env, "ridges", {"n_agents": n_agents}))
    assert found["random"] == pytest.approx(sampled.mean(), abs=0.04)
    assert found["expert"] == 10


def test_a_conflicting_log_misleads_agents_who_learn_alone(tmp_path):
    data = read_dataset(collect("ridges/conflicting", {}, 5_000, 0, tmp_path / "x")).trajectories
    action, reward = data.action[..., 0], data.reward
    assert float(reward.mean()) == pytest.approx(0.4 * np.sqrt(0.15**2 / (0.15**2 + 0.1**2 / 2)), abs=0.03)
    high = action > 0
    assert float(reward[high[:, 0]].mean()) > 0.85 > float(reward[~high[:, 0]].mean())
    assert float(reward[~high[:, 1]].mean()) > 0.85 > float(reward[high[:, 1]].mean())
    assert not (high[:, 0] & ~high[:, 1]).any()  # what they would choose was never played
    assert torch.allclose(action.mean(0), torch.tensor([-0.3, 0.3]), atol=0.03)  # what an imitator of the mean plays


@pytest.mark.parametrize("settings", [{"width": 0}, {"width": "wide"}, {"n_agents": 1}, {"observability": "none"}])
def test_invalid_settings_are_reported(settings):
    with pytest.raises(UserError, match=rf"env\.{next(iter(settings))}: found"):
        make_env("ridges", **settings)
