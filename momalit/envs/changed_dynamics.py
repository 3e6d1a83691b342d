"""Changes of a MuJoCo robot, for teams that meet another world than that of their data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from momalit.core.checks import require_numbers
from momalit.core.errors import UserError

MOTOR = "motor_"  # and the number of an actuator
# The arrays of MuJoCo's model that each change multiplies.
ARRAYS = {
    "mass": ("body_mass", "body_inertia"),
    "gear": ("actuator_gear",),
    "friction": ("geom_friction", "pair_friction"),
    "damping": ("dof_damping",),
}
CHANGES = (*ARRAYS, "gravity", "length")


def change_dynamics(env: Any, factors: Mapping[str, float | None]) -> None:
    """Multiplies physical quantities of a robot by factors.

    Args:
        env: gymnasium's MuJoCo environment without wrappers.
        factors: ``mass`` (and inertia) of all bodies, ``gear`` (the strength of all motors), ``motor_0``, ``motor_1``,
            ... (of one motor), ``friction`` of all surfaces, ``damping`` of all joints, ``gravity``, and ``length`` of
            all links, whose masses stay the same. Observations, rewards and the bounds of actions do not change, except
            for what they measure.

    Raises:
        UserError: a quantity is unknown, or a factor is not a positive number.
    """
    import mujoco  # slow, and tasks without MuJoCo do not need it

    model = env.model
    for name, factor in factors.items():
        if factor is None:  # as in a configuration that sets nothing
            continue
        motor = re.fullmatch(MOTOR + r"(\d+)", str(name))
        if not (name in CHANGES or (motor and int(motor[1]) < model.nu)):
            known = ", ".join(CHANGES)
            raise UserError(f"env.dynamics: found {name!r}, expected {known}, or {MOTOR}0 to {MOTOR}{model.nu - 1}")
        require_numbers("env.dynamics.", {str(name): factor}, above=0)
        if motor:
            model.actuator_gear[int(motor[1])] *= factor
        elif name == "gravity":
            model.opt.gravity *= factor
        elif name == "length":
            _lengthen(model, factor)
        else:
            for array in ARRAYS[name]:
                getattr(model, array)[:] *= factor
    mujoco.mj_setConst(model, env.data)  # what MuJoCo derives from these


def _lengthen(model: Any, factor: float) -> None:
    """Scales moving bodies along their links: capsules, centres of mass, and where joints and the next bodies are."""
    import mujoco

    moves, inner = model.geom_bodyid > 0, model.body_parentid > 0
    model.geom_pos[moves] *= factor
    model.geom_size[moves & (model.geom_type == mujoco.mjtGeom.mjGEOM_CAPSULE), 1] *= factor
    model.body_ipos[1:] *= factor
    model.body_inertia[1:] *= factor**2
    model.body_pos[inner] *= factor
    model.jnt_pos[inner[model.jnt_bodyid]] *= factor
