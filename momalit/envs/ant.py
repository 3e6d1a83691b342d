"""Ant: two or four agents each control legs of one robot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium

from momalit.core.checks import require_choice
from momalit.envs.factored_mujoco import RENDER_MODES, FactoredMujoco

HORIZON = 1000
STATE_SIZE = 27
TORSO = (0, 1, 2, 3, 4, 13, 14, 15, 16, 17, 18)  # height, quaternion, linear and angular velocity
ANGLES = {1: (5, 6), 2: (7, 8), 3: (9, 10), 4: (11, 12)}  # of hip and ankle, per leg number
VELOCITIES = {1: (19, 20), 2: (21, 22), 3: (23, 24), 4: (25, 26)}
ACTUATORS = {1: (2, 3), 2: (4, 5), 3: (6, 7), 4: (0, 1)}  # of hip and ankle; the model lists leg 4 first
FACTORINGS: dict[str, tuple[tuple[int, ...], ...]] = {
    "4x2": ((1,), (2,), (3,), (4,)),
    "2x4": ((1, 2), (3, 4)),
    "2x4d": ((1, 4), (2, 3)),
}


class Ant(FactoredMujoco):
    """Gymnasium's ``Ant-v5`` without contact forces in the observation.

    Episodes are truncated after 1000 steps and terminate when the robot is unhealthy.

    The state is that environment's observation, ``(27,)``: height (m) and orientation (quaternion) of the torso, angles
    (rad) of hip and ankle of legs 1 to 4, linear (m/s) and angular (rad/s) velocity of the torso, angular velocities
    (rad/s) of hip and ankle of legs 1 to 4. Actions are torques in [-1, 1] on hip and ankle of the agent's legs, in the
    order of ``factoring``. All agents receive the environment's default reward: forward velocity, plus 1 while healthy,
    minus 0.5 times the squared torques, minus 5e-4 times the squared contact forces (clipped to [-1, 1] and not part of
    the state).

    Args:
        observability: ``full`` (all agents observe the state) or ``partial`` (agent_0 observes the torso and its legs,
            the others only their legs).
        factoring: which legs each agent controls, as in Multi-Agent MuJoCo: ``4x2`` (one each), ``2x4`` (1 and 2, 3 and
            4) or ``2x4d`` (1 and 4, 2 and 3). Legs 1, 2, 3, 4 are in this order around the torso, so both pairings join
            neighbours: left and right of the rewarded direction in ``2x4``, front and back in ``2x4d``.
        render_mode: None, ``rgb_array`` or ``human``.
        dynamics: changes of the robot, e.g. ``{"mass": 1.3}``, see ``change_dynamics``; None for none.

    Raises:
        UserError: a setting is invalid.
    """

    metadata: ClassVar[dict[str, Any]] = {**FactoredMujoco.metadata, "name": "ant"}
    # Widths of observations with contact forces, which start with the state: of v5, and of v2 to v4.
    state_prefix_widths = (105, 111)

    def __init__(
        self,
        observability: str = "partial",
        factoring: str = "4x2",
        render_mode: str | None = None,
        dynamics: Mapping[str, float] | None = None,
    ) -> None:
        require_choice("env.observability", observability, ("full", "partial"))
        require_choice("env.factoring", factoring, tuple(FACTORINGS))
        require_choice("env.render_mode", render_mode, (None, *RENDER_MODES))
        legs = {f"agent_{i}": part for i, part in enumerate(FACTORINGS[factoring])}
        drives = {agent: [actuator for leg in part for actuator in ACTUATORS[leg]] for agent, part in legs.items()}
        if observability == "full":
            observes = {agent: tuple(range(STATE_SIZE)) for agent in legs}
        else:
            observes = {
                agent: tuple(sorted((TORSO if agent == "agent_0" else ()) + _leg_columns(part)))
                for agent, part in legs.items()
            }
        env = gymnasium.make(
            "Ant-v5", include_cfrc_ext_in_observation=False, render_mode=render_mode, disable_env_checker=True
        )
        super().__init__(env.unwrapped, HORIZON, observes, drives, dynamics=dynamics)

    def references(self) -> dict[str, float]:
        """Returns the mean undiscounted returns of uniformly random torques and of an expert.

        Measured with mujoco 4.0 over 1200 and 100 episodes (standard errors 6 and 110). The expert observes the full
        state and acts deterministically; it is the last snapshot in ``datamodules/policies``.
        """
        return {"random": -56.0, "expert": 3690.0}


def _leg_columns(legs: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(column for leg in legs for column in (*ANGLES[leg], *VELOCITIES[leg]))
