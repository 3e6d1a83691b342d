import gymnasium
import numpy as np
import pytest
from pettingzoo.test import parallel_api_test, parallel_seed_test

from datamodules.builders.behaviours import InverseKinematics, RandomActions
from datamodules.builders.play_episodes import run_behaviour
from momalit.core.errors import UserError
from momalit.envs import make_env, references, team_spec

OBSERVABILITIES = ["full", "leader", "independent"]


@pytest.mark.parametrize("observability", OBSERVABILITIES)
def test_pettingzoo_api(observability):
    parallel_api_test(make_env("reacher", observability=observability), num_cycles=60)
    parallel_seed_test(lambda: make_env("reacher", observability=observability), num_cycles=60)


def test_equals_gymnasiums_reacher():
    env, original = make_env("reacher"), gymnasium.make("Reacher-v5")
    env.reset(seed=3)
    expected, _ = original.reset(seed=3)
    rng = np.random.default_rng(0)
    for _ in range(50):
        assert env.state() == pytest.approx(expected.astype(np.float32), abs=0)
        action = rng.uniform(-1, 1, 2)
        _, rewards, terminations, truncations, _ = env.step({"agent_0": action[:1], "agent_1": action[1:]})
        expected, reward, _, truncated, _ = original.step(action)
        assert set(rewards.values()) == {reward}
        assert set(truncations.values()) == {truncated}
        assert not any(terminations.values())
    assert env.agents == []
    original.close()


@pytest.mark.parametrize("observability", OBSERVABILITIES)
def test_observed_columns_equal_the_observations(observability):
    env = make_env("reacher", observability=observability)
    spec = team_spec(env, "reacher", {"observability": observability})
    observations, _ = env.reset(seed=0)
    for _ in range(5):
        for agent in spec.agents:
            assert (env.state()[list(agent.observes)] == observations[agent.name]).all()
        observations, *_ = env.step(dict.fromkeys(env.agents, np.array([0.3])))


def test_observations_equal_joint_angles_velocities_and_target():
    env = make_env("reacher", observability="independent")
    observations, _ = env.reset(seed=1)
    angle, velocity = env._env.data.qpos[:2], env._env.data.qvel[:2]
    target = env._env.data.qpos[2:]
    for i, agent in enumerate(env.agents):
        expected = [np.cos(angle[i]), np.sin(angle[i]), velocity[i], *target]
        assert observations[agent] == pytest.approx(np.array(expected), rel=1e-5)
    leader = make_env("reacher", observability="leader")
    assert set(leader.observes["agent_0"]) - set(leader.observes["agent_1"]) == {4, 5}


@pytest.mark.parametrize("key", ["expert", "random"])
def test_references_match_measured_returns(key):
    spec = team_spec(make_env("reacher"), "reacher", {})
    rng = np.random.default_rng(11)
    n = 200
    behaviour = InverseKinematics(spec, n, rng, (0.0,)) if key == "expert" else RandomActions(spec, n, rng)
    returns = run_behaviour(spec, behaviour, n * 50, rng).returns
    error = float(returns.std()) / n**0.5
    assert float(returns.mean()) == pytest.approx(references(spec)[key], abs=4 * error)


def test_expert_reaches_the_target():
    spec = team_spec(make_env("reacher"), "reacher", {})
    rng = np.random.default_rng(0)
    data = run_behaviour(spec, InverseKinematics(spec, 20, rng, (0.0,)), 1000, rng)
    last = data.state[data.row[data.first] + 50]
    assert last[:, 8:10].norm(dim=1).median() < 1e-3
    elbow_sine = last[:, 3]
    assert (elbow_sine[0::2] <= 0).all()
    assert (elbow_sine[1::2] >= 0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"observability": "blind"}, r"env\.observability: found 'blind', expected one of full, leader, independent"),
        ({"render_mode": "ascii"}, r"env\.render_mode: found 'ascii'"),
    ],
)
def test_invalid_settings_are_rejected(settings, message):
    with pytest.raises(UserError, match=message):
        make_env("reacher", **settings)
