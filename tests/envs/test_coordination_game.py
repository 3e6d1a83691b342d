import numpy as np
import pytest
import torch
from pettingzoo.test import parallel_api_test, parallel_seed_test

from momalit.core.errors import UserError
from momalit.envs import make_env, references, team_spec
from momalit.envs.coordination_game import CoordinationGame


@pytest.mark.parametrize("settings", [{}, {"n_agents": 3, "n_actions": 4, "observability": "own", "payoff": "pairs"}])
def test_pettingzoo_api(settings):
    parallel_api_test(make_env("icg", **settings), num_cycles=50)
    parallel_seed_test(lambda: make_env("icg", **settings), num_cycles=20)


def test_state_is_one_hot_of_previous_actions():
    env = make_env("icg", n_agents=2, n_actions=3)
    env.reset(seed=0)
    assert not env.state().any()
    env.step({"agent_0": 2, "agent_1": 0})
    assert env.state().tolist() == [0, 0, 1, 1, 0, 0]
    assert env.state_space.contains(env.state())


@pytest.mark.parametrize(
    ("payoff", "convention_payoff", "choices", "reward"),
    [
        ("all", None, [1, 1, 1], 1.0),
        ("all", None, [1, 1, 0], 0.0),
        ("all", [1.0, 5.0], [1, 1, 1], 5.0),
        ("pairs", None, [1, 1, 0], 1 / 3),
        ("pairs", [1.0, 6.0], [1, 1, 0], 2.0),
    ],
)
def test_rewards_equal_hand_computed_values(payoff, convention_payoff, choices, reward):
    env = CoordinationGame(n_agents=3, payoff=payoff, convention_payoff=convention_payoff)
    env.reset()
    _, rewards, *_ = env.step({f"agent_{i}": choice for i, choice in enumerate(choices)})
    assert list(rewards.values()) == pytest.approx([reward] * 3)


def test_episode_is_truncated_at_the_horizon():
    env = make_env("icg", horizon=3)
    env.reset()
    for time in range(3):
        assert env.agents == env.possible_agents
        _, _, terminations, truncations, _ = env.step(dict.fromkeys(env.agents, 0))
        assert not any(terminations.values())
        assert set(truncations.values()) == {time == 2}
    assert env.agents == []


@pytest.mark.parametrize("observability", ["all", "own"])
def test_observed_columns_equal_the_observations(observability):
    env = make_env("icg", n_agents=3, n_actions=3, observability=observability)
    spec = team_spec(env, "icg", {})
    rng = np.random.default_rng(0)
    observations, _ = env.reset()
    while env.agents:
        for agent in spec.agents:
            assert (env.state()[list(agent.observes)] == observations[agent.name]).all()
        observations, *_ = env.step({agent: int(rng.integers(3)) for agent in env.agents})


@pytest.mark.parametrize(
    ("payoff", "convention_payoff"), [("all", [1.0, 2.0, 0.5]), ("pairs", [1.0, 2.0, 0.5]), ("all", None)]
)
def test_references_are_exact(payoff, convention_payoff):
    settings = {"n_agents": 3, "n_actions": 3, "horizon": 4, "payoff": payoff, "convention_payoff": convention_payoff}
    env = make_env("icg", **settings)
    joint_actions = torch.cartesian_prod(*[torch.arange(3)] * 3).numpy()
    rewards = np.array([env.reward(choices) for choices in joint_actions])
    found = references(team_spec(env, "icg", settings))
    assert found == pytest.approx({"random": 4 * rewards.mean(), "expert": 4 * rewards.max()})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_agents": 1}, r"env\.n_agents: found 1, expected an integer of at least 2"),
        ({"n_actions": 2.5}, r"env\.n_actions: found 2\.5"),
        ({"payoff": "some"}, r"env\.payoff: found 'some', expected all or pairs"),
        ({"observability": "none"}, r"env\.observability: found 'none'"),
        ({"convention_payoff": [1.0]}, r"env\.convention_payoff: found 1 values, expected n_actions = 2"),
        ({"n_agent": 3}, r"env\.n_agent: not a setting of icg.*did you mean n_agents\?"),
    ],
)
def test_invalid_settings_are_rejected(settings, message):
    with pytest.raises(UserError, match=message):
        make_env("icg", **settings)
