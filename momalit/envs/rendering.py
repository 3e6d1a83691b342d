"""Pictures of MuJoCo's robots: without a display, and with the robot in view. The physics stay as they are."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SHADOW_PIXELS = 2048  # half of MuJoCo's own: shadows take most of the time where no graphics card draws them


@contextmanager
def egl_without_display() -> Iterator[None]:
    """Sets ``MUJOCO_GL=egl`` on a Linux machine that has no display, unless the variable is set.

    Gymnasium reads it when an environment renders for the first time. Afterwards it is as before: where EGL is
    missing, MuJoCo could not even be imported with it.
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


def follow(env: Any) -> None:
    """Lets the camera go along with a robot that walks, and makes the floor endless.

    Args:
        env: gymnasium's MuJoCo environment without wrappers, before its first picture.
    """
    import mujoco  # costs time, which tasks without it need not spend

    renderer, model = env.mujoco_renderer, env.model
    tracking = {"type": int(mujoco.mjtCamera.mjCAMERA_TRACKING), "trackbodyid": 1}
    renderer.default_cam_config = {**(renderer.default_cam_config or {}), **tracking}
    renderer.camera_id = None  # any number makes gymnasium choose a camera that stands still
    for plane in (model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE).nonzero()[0]:
        size, material = model.geom_size[plane, :2].copy(), model.geom_matid[plane]
        if material >= 0 and not model.mat_texuniform[material] and size.all():
            model.mat_texrepeat[material] /= 2 * size  # from repeats per plane to repeats per metre
            model.mat_texuniform[material] = 1
        model.geom_size[plane, :2] = 0.0  # endless in pictures, as it is in collisions
    model.vis.quality.shadowsize = min(model.vis.quality.shadowsize, SHADOW_PIXELS)
