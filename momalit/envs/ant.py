"""Ant: two or four agents each control legs of one robot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np

from momalit.core.checks import require_choice
from momalit.core.symmetries import Parts
from momalit.core.team import STATE
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


# The sign of an ankle that is bent alike, per leg: legs 2 and 3 turn theirs the other way.
ANKLES = {1: 1, 2: -1, 3: -1, 4: 1}
MIRROR = {1: 4, 2: 3, 3: 2, 4: 1}  # the leg that each one's place has in the mirror
TURN = {1: 2, 2: 3, 3: 4, 4: 1}  # the leg that is in each one's place if the body is a quarter turn further


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
        self._legs = legs
        self.symmetries = () if dynamics else (self._mirrored, self._turned)

    def references(self) -> dict[str, float]:
        """Returns the mean undiscounted returns of uniformly random torques and of an expert.

        Measured with mujoco 4.0 over 1200 and 100 episodes (standard errors 6 and 110). The expert observes the full
        state and acts deterministically; it is the last snapshot in ``datamodules/policies``.
        """
        return {"random": -56.0, "expert": 3690.0}

    def _mirrored(self, observations: Parts, actions: Parts) -> tuple[Parts, Parts]:
        """Left and right of the rewarded direction exchanged."""
        height, w, x, y, z = observations[STATE][list(TORSO[:5])]
        vx, vy, vz, wx, wy, wz = observations[STATE][list(TORSO[5:])]
        torso = [height, w, -x, y, -z, vx, -vy, vz, -wx, wy, -wz]
        return self._with_legs(observations, actions, torso, MIRROR, -1)

    def _turned(self, observations: Parts, actions: Parts) -> tuple[Parts, Parts]:
        """The body a quarter turn further, with its legs renamed: everything stays where it is."""
        height, w, x, y, z = observations[STATE][list(TORSO[:5])]
        vx, vy, vz, wx, wy, wz = observations[STATE][list(TORSO[5:])]
        turned = np.array([w - z, x + y, y - x, z + w]) / np.sqrt(2)  # times the quaternion of the quarter turn
        return self._with_legs(observations, actions, [height, *turned, vx, vy, vz, wy, -wx, wz], TURN, 1)

    def _with_legs(
        self, observations: Parts, actions: Parts, torso: Sequence[float], legs: Mapping[int, int], hips: int
    ) -> tuple[Parts, Parts]:
        """The state with this torso, and every leg, with its torques, replaced by another one.

        Args:
            observations: with the state.
            actions: torques.
            torso: the new values of the torso.
            legs: the leg that comes to each one's place.
            hips: 1 or -1, the sign with which hips turn in the new world.
        """
        state = observations[STATE].copy()
        state[list(TORSO)] = torso
        torques: dict[int, np.ndarray] = {}
        for agent, own in self._legs.items():
            torques.update(zip(own, np.split(actions[agent], len(own)), strict=True))
        signs = {leg: np.array([hips, ANKLES[leg] * ANKLES[source]]) for leg, source in legs.items()}
        for leg, source in legs.items():
            for columns in (ANGLES, VELOCITIES):
                state[list(columns[leg])] = signs[leg] * observations[STATE][list(columns[source])]
        moved = {leg: signs[leg] * torques[source] for leg, source in legs.items()}
        return {STATE: state}, {agent: np.concatenate([moved[leg] for leg in own]) for agent, own in self._legs.items()}


def _leg_columns(legs: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(column for leg in legs for column in (*ANGLES[leg], *VELOCITIES[leg]))
