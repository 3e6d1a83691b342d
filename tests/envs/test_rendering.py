"""Rendering: EGL only without a display, unchanged physics, and a camera that tracks the robot."""

import os

import numpy as np
import pytest

from momalit.envs import make_env
from momalit.envs.rendering import egl_without_display


@pytest.fixture
def headless(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    return monkeypatch


def test_egl_is_set_temporarily_without_a_display(headless):
    with egl_without_display():
        assert os.environ["MUJOCO_GL"] == "egl"
    assert "MUJOCO_GL" not in os.environ


@pytest.mark.parametrize(("name", "value"), [("DISPLAY", ":0"), ("WAYLAND_DISPLAY", "w"), ("MUJOCO_GL", "osmesa")])
def test_display_or_user_setting_takes_precedence(headless, name, value):
    headless.setenv(name, value)
    before = dict(os.environ)
    with egl_without_display():
        assert dict(os.environ) == before
    assert dict(os.environ) == before


def test_rendering_does_not_change_the_physics():
    plain, rendered = make_env("ant"), make_env("ant", render_mode="rgb_array")
    rng = np.random.default_rng(0)
    for env in (plain, rendered):
        env.reset(seed=3)
    for _ in range(100):
        if not plain.agents:
            break
        actions = {agent: rng.uniform(-1, 1, 2).astype(np.float32) for agent in plain.agents}
        assert plain.step(actions)[1] == rendered.step(actions)[1]
        assert np.array_equal(plain.state(), rendered.state())


def test_camera_shows_a_distant_ant_and_the_reacher():
    with egl_without_display():
        ant, reacher = make_env("ant", render_mode="rgb_array"), make_env("reacher", render_mode="rgb_array")
        for env in (ant, reacher):
            env.reset(seed=0)
        try:
            images = [ant.render()]
        except Exception as error:  # the exception depends on the graphics library
            pytest.skip(f"cannot render here: {error}")
        robot = ant._env
        position = robot.data.qpos.copy()
        position[0] += 100.0  # metres
        robot.set_state(position, robot.data.qvel)
        images.append(ant.render())
        for image in images:
            red, green, blue = image[120:360, 120:360].astype(int).transpose(2, 0, 1)
            assert (red - blue > 40).mean() > 0.03  # the robot is brown, the floor green and black
            assert (green > red + 10).mean() > 0.1
        red, green, blue = reacher.render().astype(int).transpose(2, 0, 1)
        assert (blue - red > 40).sum() > 200  # the arm
        assert (red - green > 40).sum() > 100  # frame and target
        ant.close()
        reacher.close()
