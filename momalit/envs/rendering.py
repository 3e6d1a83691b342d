"""Rendering of MuJoCo robots without a display and with a tracking camera. The physics do not change."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Software rendering takes half as long with these as with MuJoCo's 4096 and 4.
SHADOW_PIXELS = 1024
SAMPLES = 0  # for antialiasing


@contextmanager
def egl_without_display() -> Iterator[None]:
    """Sets ``MUJOCO_GL=egl`` on a Linux machine that has no display, unless the variable is set.

    Gymnasium reads the variable when an environment renders for the first time. It is removed afterwards, because
    without EGL a later import of MuJoCo would fail with it.
    """
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if display or sys.platform != "linux" or "MUJOCO_GL" in os.environ:
        yield
        return
    os.environ["MUJOCO_GL"] = "egl"
    try:
        yield
    finally:
        os.environ.pop("MUJOCO_GL", None)


def track_robot(env: Any) -> None:
    """Lets the camera track a moving robot, makes the floor infinite, and trades smooth edges for speed.

    Args:
        env: gymnasium's MuJoCo environment without wrappers, before it renders for the first time.
    """
    import mujoco  # slow, and tasks without MuJoCo do not need it

    renderer, model = env.mujoco_renderer, env.model
    tracking = {"type": int(mujoco.mjtCamera.mjCAMERA_TRACKING), "trackbodyid": 1}
    renderer.default_cam_config = {**(renderer.default_cam_config or {}), **tracking}
    renderer.camera_id = None  # any number selects a fixed camera in gymnasium
    for plane in (model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE).nonzero()[0]:
        size, material = model.geom_size[plane, :2].copy(), model.geom_matid[plane]
        if material >= 0 and not model.mat_texuniform[material] and size.all():
            model.mat_texrepeat[material] /= 2 * size  # from repeats per plane to repeats per metre
            model.mat_texuniform[material] = 1
        model.geom_size[plane, :2] = 0.0  # infinite in rendered images, as it is for collisions
    model.vis.quality.shadowsize = min(model.vis.quality.shadowsize, SHADOW_PIXELS)
    model.vis.quality.offsamples = SAMPLES
