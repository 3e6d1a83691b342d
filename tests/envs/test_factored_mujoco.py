import sys

import numpy as np
import pytest
import torch
from pettingzoo.test import parallel_api_test, parallel_seed_test

from momalit.core.errors import UserError
from momalit.envs import VectorTeamEnv, make_env, references, team_spec
from momalit.envs.factored_mujoco import FACTORINGS

ALL_FACTORINGS = [(scenario, factoring) for scenario, factorings in FACTORINGS.items() for factoring in factorings]


@pytest.fixture(scope="module")
def mamujoco():
    return pytest.importorskip("gymnasium_robotics").mamujoco_v1


@pytest.mark.parametrize(("scenario", "factoring"), ALL_FACTORINGS)
@pytest.mark.parametrize("obsk", [0, 1])
def test_equals_multi_agent_mujoco(mamujoco, scenario, factoring, obsk):
    env = make_env("mamujoco", scenario=scenario, factoring=factoring, obsk=obsk)
    original = mamujoco.parallel_env(scenario, factoring, obsk)
    assert env.possible_agents == original.possible_agents
    assert env.horizon == original.single_agent_env.spec.max_episode_steps == 1000
    rng = np.random.default_rng(0)
    for seed in (3, 4):
        observations, _ = env.reset(seed=seed)
        expected, _ = original.reset(seed=seed)
        for _ in range(60):
            state = original.state()
            assert (env.state() == state.astype(np.float32)).all()
            for agent in env.possible_agents:
                observation = expected[agent].clip(-10, 10) if scenario == "Walker2d" else expected[agent]
                assert (observations[agent] == observation.astype(np.float32)).all()
            if not env.agents:
                break
            actions = {agent: rng.uniform(original.action_space(agent).low, original.action_space(agent).high)
                    for agent in env.agents}  # fmt: skip
            observations, rewards, terminations, truncations, _ = env.step(actions)
            expected, *ends, _ = original.step(actions)
            assert [rewards, terminations, truncations] == ends
    original.close()
    env.close()


@pytest.mark.usefixtures("mamujoco")
@pytest.mark.parametrize(("scenario", "factoring"), [("HalfCheetah", "6x1"), ("Hopper", "3x1"), ("Humanoid", "9|8")])
def test_pettingzoo_api(scenario, factoring):
    parallel_api_test(make_env("mamujoco", scenario=scenario, factoring=factoring), num_cycles=50)
    parallel_seed_test(lambda: make_env("mamujoco", scenario=scenario, factoring=factoring), num_cycles=10)


@pytest.mark.usefixtures("mamujoco")
def test_observed_columns_and_action_bounds():
    hopper = make_env("mamujoco", scenario="Hopper", factoring="3x1")
    # State: z, angle, thigh, leg, foot, then velocities of x, z, angle, thigh, leg, foot. The thigh's agent observes
    # its own joint, the leg's angle and the torso. The outer two agents observe one neighbour, the middle one two.
    assert hopper.observes["agent_0"] == (2, 8, 3, 0, 1, 5, 6, 7)
    assert [len(columns) for columns in hopper.observes.values()] == [8, 9, 8]
    humanoid = make_env("mamujoco", scenario="Humanoid", factoring="9|8")
    assert humanoid.action_space("agent_1").shape == (8,)
    assert humanoid.action_space("agent_1").high.tolist() == pytest.approx([0.4] * 8)
    assert humanoid.metadata["render_fps"] == 67


@pytest.mark.usefixtures("mamujoco")
def test_vector_env_equals_single_environment():
    settings = {"scenario": "Walker2d", "factoring": "2x3"}
    single = make_env("mamujoco", **settings)
    spec = team_spec(single, "mamujoco", settings)
    assert references(spec) is None
    env = VectorTeamEnv(spec, 2)
    env.reset([0, 5])
    single.reset(seed=5)
    for _ in range(5):
        step = env.step(torch.full((2, 2, 3), 0.5))
        single.step(dict.fromkeys(single.agents, np.full(3, 0.5, np.float32)))
        assert (step.state[1].numpy() == single.state()).all()


@pytest.mark.usefixtures("mamujoco")
def test_step_after_the_end_has_no_effect():
    env = make_env("mamujoco", scenario="Swimmer", factoring="2x1")
    env.horizon = 2
    env.reset(seed=0)
    zero_actions = dict.fromkeys(env.agents, np.zeros(1))
    env.step(zero_actions)
    _, _, terminations, truncations, _ = env.step(zero_actions)
    assert (set(terminations.values()), set(truncations.values()), env.agents) == ({False}, {True}, [])
    before = env.state()
    assert env.step(zero_actions) == ({}, {}, {}, {}, {})
    assert (env.state() == before).all()


HALF_CHEETAH = {"scenario": "HalfCheetah", "factoring": "2x3"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"scenario": "CoupledHalfCheetah", "factoring": "1p1"},
            r"env\.scenario: found 'CoupledHalfCheetah', expected one of Ant, HalfCheetah, Hopper, Humanoid, "
            "HumanoidStandup, Swimmer, Walker2d",
        ),
        ({**HALF_CHEETAH, "factoring": "3x2"}, r"env\.factoring: found '3x2', expected 2x3 or 6x1"),
        ({**HALF_CHEETAH, "obsk": -1}, r"env\.obsk: found -1, expected an integer of at least 0"),
        ({**HALF_CHEETAH, "obsk": None}, r"env\.obsk: found null"),
        ({**HALF_CHEETAH, "render_mode": "ascii"}, r"env\.render_mode: found 'ascii'"),
        ({"scenario": "Hopper"}, "env mamujoco: cannot be made with .* 'factoring'"),
    ],
)
def test_invalid_settings_are_rejected(settings, message):
    with pytest.raises(UserError, match=message):
        make_env("mamujoco", **settings)


def test_missing_gymnasium_robotics_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", None)
    with pytest.raises(UserError, match=r"found no gymnasium-robotics .*pip install 'momalit\[mamujoco\]'"):
        make_env("mamujoco", **HALF_CHEETAH)
