"""Robots with changed dynamics, against what physics says."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from momalit.core.errors import UserError
from momalit.envs import VectorTeamEnv, team_spec
from momalit.envs.ant import Ant
from momalit.envs.changed_dynamics import ARRAYS, change_dynamics
from momalit.envs.factored_mujoco import MultiAgentMujoco
from momalit.envs.factory import make_env, non_default_settings
from momalit.envs.reacher import Reacher


def robot(name: str = "Ant-v5", **factors):
    env = gymnasium.make(name, disable_env_checker=True).unwrapped
    if factors:
        change_dynamics(env, factors)
    return env


def states(env, actions: np.ndarray) -> np.ndarray:
    """States of an episode in which the joint actions are given, ``(T, A)``."""
    env.reset(seed=0)
    found = []
    for action in actions:
        env.step_joint(action)
        found.append(env.state())
    return np.array(found)


@pytest.mark.parametrize("name", ARRAYS)
def test_factors_multiply_the_arrays_of_the_model_and_nothing_else(name):
    plain, changed = robot(), robot(**{name: 1.25})
    for other, arrays in ARRAYS.items():
        for array in arrays:
            expected = getattr(plain.model, array) * (1.25 if other == name else 1)
            np.testing.assert_allclose(getattr(changed.model, array), expected)


def test_several_changes_at_once():
    model = robot(mass=2, motor_3=0.5).model
    assert model.body_mass.sum() == pytest.approx(2 * robot().model.body_mass.sum())
    assert model.body_subtreemass[1] == pytest.approx(model.body_mass.sum())  # what MuJoCo derives
    assert (model.actuator_gear[:, 0] / robot().model.actuator_gear[:, 0]).tolist() == [1, 1, 1, 0.5, 1, 1, 1, 1]


def test_half_the_gear_is_half_the_torque():
    actions = np.random.default_rng(0).uniform(-1, 1, (20, 2))
    weak, plain = Reacher(dynamics={"gear": 0.5}), Reacher()
    np.testing.assert_allclose(states(weak, actions), states(plain, actions / 2), atol=1e-6)
    one = states(Reacher(dynamics={"motor_1": 0.5}), actions)
    np.testing.assert_allclose(one, states(plain, actions * [1, 0.5]), atol=1e-6)


def test_a_falling_robot_falls_by_gravity_whatever_its_mass():
    def height(**dynamics) -> float:
        return float(states(Ant(dynamics=dynamics), np.zeros((1, 8)))[-1, 0])

    fallen = height() - height(gravity=1e-6)
    assert fallen == pytest.approx(-9.81 * 0.05**2 / 2, rel=0.02)  # a step lasts 0.05 s
    assert height(gravity=2) - height(gravity=1e-6) == pytest.approx(2 * fallen, rel=0.01)
    assert height(mass=2) == pytest.approx(height(), abs=1e-4)


@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_a_longer_arm_reaches_further(factor):
    env = robot("Reacher-v5", length=factor)
    env.set_state(np.zeros(4), np.zeros(4))
    fingertip = env.get_body_com("fingertip")
    np.testing.assert_allclose(fingertip, [0.21 * factor, 0, 0.01], atol=1e-9)
    link = env.model.geom("link1")
    # The second capsule is centred half a link beyond the elbow, and its sphere-shaped ends keep their radius.
    np.testing.assert_allclose(env.data.geom_xpos[link.id], [0.15 * factor, 0, 0.01], atol=1e-9)
    np.testing.assert_allclose(link.size[:2], [0.01, 0.05 * factor])
    np.testing.assert_allclose(env.get_body_com("target")[:2], [0, 0], atol=1e-9)
    assert env.model.body_mass.sum() == pytest.approx(robot("Reacher-v5").model.body_mass.sum())


def test_longer_legs_stand_on_the_floor():
    highest = [states(Ant(dynamics={"length": factor}), np.zeros((300, 8)))[-1, 0] for factor in (0.7, 1.0, 1.3)]
    assert 0.15 < highest[0] < highest[1] < highest[2] < 1


@pytest.mark.parametrize("make", [Ant, Reacher, lambda **changes: MultiAgentMujoco("HalfCheetah", "6x1", **changes)])
def test_every_robot_can_be_changed(make):
    plain = make()
    actions = np.random.default_rng(1).uniform(-1, 1, (15, len(plain._low)))
    expected = states(plain, actions)
    assert np.array_equal(states(make(dynamics={}), actions), expected)
    for changes in ({"mass": 1.3}, {"gear": 0.7}, {"damping": 2.0}, {"length": 1.2}, {"motor_0": 0.5}):
        assert not np.array_equal(states(make(dynamics=changes), actions), expected), changes


def test_copies_are_changed_alike():
    dynamics = {"gear": 0.5}
    spec = team_spec(Reacher(dynamics=dynamics), "reacher", {"dynamics": dynamics})
    assert spec.env == {"name": "reacher", "dynamics": {"gear": 0.5}}
    env = VectorTeamEnv(spec, 3)
    assert [copy._env.model.actuator_gear[0, 0] for copy in env.envs] == [100.0] * 3
    assert non_default_settings("reacher", {"dynamics": None}) == {}


@pytest.mark.parametrize(
    ("dynamics", "message"),
    [
        (
            {"mas": 1.3},
            r"env\.dynamics: found 'mas', expected mass, gear, friction, damping, gravity, length, or motor_0",
        ),
        ({"motor_2": 1.3}, r"found 'motor_2', expected .*, or motor_0 to motor_1"),
        ({"mass": 0}, r"env\.dynamics\.mass: found 0, expected a number above 0"),
        ({"mass": "1.3"}, r"env\.dynamics\.mass: found '1.3', expected a number"),
        ({"mass": float("nan")}, r"env\.dynamics\.mass: found nan"),
    ],
)
def test_mistakes(dynamics, message):
    with pytest.raises(UserError, match=message):
        make_env("reacher", dynamics=dynamics)
