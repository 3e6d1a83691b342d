import gymnasium
import numpy as np
import pytest
import torch
from pettingzoo.test import parallel_api_test, parallel_seed_test

from momalit.core.errors import UserError
from momalit.envs import VectorTeamEnv, make_env, references, team_spec
from momalit.envs.ant import ACTUATORS, ANGLES, TORSO, VELOCITIES

SETTINGS = [(observability, factoring) for observability in ("full", "partial") for factoring in ("4x2", "2x4", "2x4d")]


def random_actions(env, rng):
    return {agent: rng.uniform(-1, 1, env.action_space(agent).shape) for agent in env.agents}


@pytest.mark.parametrize(("observability", "factoring"), SETTINGS)
def test_pettingzoo_api(observability, factoring):
    settings = {"observability": observability, "factoring": factoring}
    parallel_api_test(make_env("ant", **settings), num_cycles=60)
    parallel_seed_test(lambda: make_env("ant", **settings), num_cycles=20)


def test_leg_tables_match_the_mujoco_model():
    model = make_env("ant")._env.model
    for leg in (1, 2, 3, 4):
        for part, name in enumerate(("hip", "ankle")):
            joint = model.joint(f"{name}_{leg}")
            assert model.actuator(ACTUATORS[leg][part]).trnid[0] == joint.id
            assert ANGLES[leg][part] == joint.qposadr[0] - 2  # the state excludes x and y of the torso
            assert VELOCITIES[leg][part] == model.nq - 2 + joint.dofadr[0]
    root = model.joint("root")
    assert (root.qposadr[0], root.dofadr[0]) == (0, 0)
    assert (*range(7 - 2), *range(model.nq - 2, model.nq - 2 + 6)) == TORSO


@pytest.mark.parametrize("factoring", ["4x2", "2x4", "2x4d"])
def test_agents_control_the_legs_that_they_observe(factoring):
    env = make_env("ant", factoring=factoring)
    model = env._env.model
    for agent in env.possible_agents:
        driven = [model.joint(model.actuator(actuator).trnid[0]) for actuator in env.drives[agent]]
        columns = {joint.qposadr[0] - 2 for joint in driven} | {model.nq - 2 + joint.dofadr[0] for joint in driven}
        torso = set(TORSO) if agent == "agent_0" else set()
        assert set(env.observes[agent]) == columns | torso
    assert sorted(actuator for driven in env.drives.values() for actuator in driven) == list(range(8))
    assert sorted(column for seen in env.observes.values() for column in seen) == list(range(27))


def test_observation_and_action_sizes():
    def sizes(**settings):
        env = make_env("ant", **settings)
        return [(env.observation_space(a).shape[0], env.action_space(a).shape[0]) for a in env.possible_agents]

    assert sizes() == [(15, 2), (4, 2), (4, 2), (4, 2)]
    assert sizes(factoring="2x4") == sizes(factoring="2x4d") == [(19, 4), (8, 4)]
    assert sizes(observability="full") == [(27, 2)] * 4


@pytest.mark.parametrize(
    ("factoring", "order"), [("4x2", (2, 3, 4, 5, 6, 7, 0, 1)), ("2x4d", (2, 3, 0, 1, 4, 5, 6, 7))]
)
def test_equals_gymnasiums_ant(factoring, order):
    env = make_env("ant", factoring=factoring)
    original = gymnasium.make("Ant-v5", include_cfrc_ext_in_observation=False)
    rng = np.random.default_rng(0)
    for seed in (3, 4):
        env.reset(seed=seed)
        expected, _ = original.reset(seed=seed)
        for _ in range(200):
            assert (env.state() == expected.astype(np.float32)).all()
            actions = random_actions(env, rng)
            torque = np.zeros(8)
            torque[list(order)] = np.concatenate(list(actions.values()))
            observations, rewards, terminations, truncations, _ = env.step(actions)
            expected, reward, terminated, truncated, _ = original.step(torque)
            assert set(rewards.values()) == {float(reward)}
            assert set(terminations.values()) == {bool(terminated)}
            assert set(truncations.values()) == {truncated}
            for agent, columns in env.observes.items():
                assert (observations[agent] == env.state()[list(columns)]).all()
            if not env.agents:
                break
    original.close()


def test_unhealthy_state_terminates_and_time_limit_truncates():
    env = make_env("ant")
    env.reset(seed=0)
    data = env._env.data
    high = data.qpos.copy()
    high[2] = 1.5  # healthy is up to 1.0 m
    env._env.set_state(high, data.qvel.copy())
    zero_torques = dict.fromkeys(env.possible_agents, np.zeros(2, np.float32))
    _, _, terminations, truncations, _ = env.step(zero_torques)
    assert (set(terminations.values()), set(truncations.values()), env.agents) == ({True}, {False}, [])
    env.reset(seed=0)
    steps = 0
    while env.agents:
        _, _, terminations, truncations, _ = env.step(zero_torques)
        steps += 1
    assert (steps, set(terminations.values()), set(truncations.values())) == (1000, {False}, {True})


def test_torques_are_clipped():
    env, reference = make_env("ant"), make_env("ant")
    env.reset(seed=0)
    reference.reset(seed=0)
    _, reward, *_ = env.step(dict.fromkeys(env.agents, np.array([3.0, -3.0])))
    _, expected, *_ = reference.step(dict.fromkeys(reference.agents, np.array([1.0, -1.0])))
    assert reward == expected
    assert (env.state() == reference.state()).all()


@pytest.mark.parametrize(("observability", "factoring"), SETTINGS)
def test_vector_env_equals_single_environment(observability, factoring):
    settings = {"observability": observability, "factoring": factoring}
    single = make_env("ant", **settings)
    spec = team_spec(single, "ant", settings)
    assert (spec.horizon, spec.state_size) == (1000, 27)
    env = VectorTeamEnv(spec, 2)
    state = env.reset([1, 7])
    single.reset(seed=7)
    rng = np.random.default_rng(0)
    for _ in range(5):
        assert (state[1].numpy() == single.state()).all()
        actions = random_actions(single, rng)
        joint = torch.from_numpy(np.stack(list(actions.values()))).float()
        step = env.step(joint.expand(2, -1, -1))
        _, rewards, *_ = single.step({agent: joint[i].numpy() for i, agent in enumerate(actions)})
        assert float(step.reward[1]) == pytest.approx(rewards["agent_0"], rel=1e-6)
        state = step.state


def test_random_reference_matches_measured_returns():
    env, rng, n = make_env("ant"), np.random.default_rng(2), 20
    returns = np.zeros(n)
    for row in range(n):
        env.reset(seed=row)
        while env.agents:
            _, rewards, *_ = env.step(random_actions(env, rng))
            returns[row] += rewards["agent_0"]
    stored = references(team_spec(env, "ant", {}))
    assert returns.mean() == pytest.approx(stored["random"], abs=4 * returns.std() / n**0.5)
    assert stored["expert"] > stored["random"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"observability": "blind"}, r"env\.observability: found 'blind', expected full or partial"),
        ({"factoring": "8x1"}, r"env\.factoring: found '8x1', expected one of 4x2, 2x4, 2x4d"),
        ({"render_mode": "ascii"}, r"env\.render_mode: found 'ascii', expected one of null, rgb_array, human"),
    ],
)
def test_invalid_settings_are_rejected(settings, message):
    with pytest.raises(UserError, match=message):
        make_env("ant", **settings)
