"""Two-agent Reacher: each agent controls one joint of an arm that moves its fingertip to a target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium
import numpy as np

from momalit.core.checks import require_choice
from momalit.core.symmetries import Parts
from momalit.core.team import STATE
from momalit.envs.factored_mujoco import RENDER_MODES, FactoredMujoco

HORIZON = 50
# Camera above the whole arena, with x to the right and y up; lookat and distance in m, angles in degrees.
TOP_VIEW = {"lookat": np.zeros(3), "distance": 0.85, "elevation": -90.0, "azimuth": 90.0}
JOINTS = (0, 1, 2, 3, 6, 7)  # cos of both, sin of both, velocity of both
TARGET = (4, 5)
OBSERVES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "full": (tuple(range(10)), tuple(range(10))),
    "leader": ((*JOINTS, *TARGET), JOINTS),
    "independent": ((0, 2, 6, *TARGET), (1, 3, 7, *TARGET)),
}


class Reacher(FactoredMujoco):
    """Gymnasium's ``Reacher-v5`` with one joint per agent. Episodes have 50 steps and never terminate.

    The state is that environment's observation, ``(10,)``: cos of the two angles, sin of the two angles, target x and
    y (m), angular velocities (rad/s), fingertip minus target x and y (m). Actions are torques in [-1, 1]. Both agents
    receive the environment's reward: minus the distance to the target minus the squared torques.

    Args:
        observability: ``full`` (both observe the state), ``leader`` (agent_0 observes joints and target, agent_1 only
            the joints) or ``independent`` (each observes its own joint and the target).
        render_mode: None, ``rgb_array`` or ``human``.
        dynamics: changes of the robot, e.g. ``{"mass": 1.3}``, see ``change_dynamics``; None for none.

    Raises:
        UserError: a setting is invalid.
    """

    metadata: ClassVar[dict[str, Any]] = {**FactoredMujoco.metadata, "name": "reacher"}
    state_prefix_widths = (11,)  # widths of other versions' observations that start with the state: v2 and v4

    def __init__(
        self,
        observability: str = "full",
        render_mode: str | None = None,
        dynamics: Mapping[str, float] | None = None,
    ) -> None:
        require_choice("env.observability", observability, tuple(OBSERVES))
        require_choice("env.render_mode", render_mode, (None, *RENDER_MODES))
        wrapped: Any = gymnasium.make(
            "Reacher-v5", render_mode=render_mode, default_camera_config=TOP_VIEW, disable_env_checker=True
        )
        env = wrapped.unwrapped
        if render_mode is not None:
            env.model.vis.headlight.ambient[:] = 0.4  # the model has no light source
        agents = ("agent_0", "agent_1")
        observes = dict(zip(agents, OBSERVES[observability], strict=True))
        drives = {agent: (joint,) for joint, agent in enumerate(agents)}
        super().__init__(env, HORIZON, observes, drives, walks=False, dynamics=dynamics)
        self.symmetries = (self._turned, self._mirrored)

    def _turned(self, observations: Parts, actions: Parts) -> tuple[Parts, Parts]:
        """Arm and target an eighth of a turn further."""
        state = observations[STATE].copy()
        for x, y in ((0, 2), TARGET, (8, 9)):  # the first joint, the target, the fingertip from the target
            state[x] = (observations[STATE][x] - observations[STATE][y]) / np.sqrt(2)
            state[y] = (observations[STATE][x] + observations[STATE][y]) / np.sqrt(2)
        return {STATE: state}, actions

    def _mirrored(self, observations: Parts, actions: Parts) -> tuple[Parts, Parts]:
        """Left and right exchanged."""
        state = observations[STATE].copy()
        for column in (2, 3, 5, 6, 7, 9):  # sines, y, velocities
            state[column] *= -1
        return {STATE: state}, {agent: -torque for agent, torque in actions.items()}

    def references(self) -> dict[str, float]:
        """Returns the mean undiscounted returns of uniformly random torques and of the noise-free expert.

        Measured with mujoco 4.0 over 5000 episodes each (standard errors 0.05 and 0.03); the expert bends the elbow
        each way in half of them. The expert is the controller of ``datamodules.builders.behaviours``. It uses only what
        an ``independent`` agent observes, and it is not optimal, so a normalised score may exceed 1. The references
        also apply to a ``leader`` team, whose agent_1 does not observe the target.
        """
        return {"random": -42.84, "expert": -5.65}
