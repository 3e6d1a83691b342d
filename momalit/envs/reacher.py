"""Two-agent Reacher: each agent drives one joint of an arm whose fingertip is to reach a target."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np

from momalit.envs.factored_mujoco import RENDER_MODES, FactoredMujoco, checked

HORIZON = 50
# The camera: the whole arena as a map with x (m) to the right and y up.
FROM_ABOVE = {"lookat": np.zeros(3), "distance": 0.85, "elevation": -90.0, "azimuth": 90.0}
JOINTS = (0, 1, 2, 3, 6, 7)  # cos of both, sin of both, velocity of both
TARGET = (4, 5)
OBSERVES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "full": (tuple(range(10)), tuple(range(10))),
    "leader": ((*JOINTS, *TARGET), JOINTS),
    "independent": ((0, 2, 6, *TARGET), (1, 3, 7, *TARGET)),
}


class Reacher(FactoredMujoco):
    """Gymnasium's ``Reacher-v5`` with a joint for each of two agents; 50 steps, never terminates.

    The state is that environment's observation, ``(10,)``: cos of the two angles, sin of the two angles, target x and
    y (m), angular velocities (rad/s), fingertip minus target x and y (m). Actions are torques in [-1, 1]. All agents
    get the environment's reward: minus the distance to the target minus the squared torques.

    Args:
        observability: ``full`` (both see the state), ``leader`` (agent_0 sees joints and target, agent_1 the joints)
            or ``independent`` (each sees its own joint and the target).
        render_mode: None, ``rgb_array`` or ``human``.

    Raises:
        UserError: a setting is outside its range.
    """

    metadata: ClassVar[dict[str, Any]] = {**FactoredMujoco.metadata, "name": "reacher"}
    state_leads = (11,)  # widths of other versions' observations that begin with the state: v2 and v4

    def __init__(self, observability: str = "full", render_mode: str | None = None) -> None:
        checked("observability", observability, tuple(OBSERVES))
        checked("render_mode", render_mode, (None, *RENDER_MODES))
        made: Any = gymnasium.make(
            "Reacher-v5", render_mode=render_mode, default_camera_config=FROM_ABOVE, disable_env_checker=True
        )
        env = made.unwrapped
        if render_mode is not None:
            env.model.vis.headlight.ambient[:] = 0.4  # the model has no lamp of its own
        agents = ("agent_0", "agent_1")
        observes = dict(zip(agents, OBSERVES[observability], strict=True))
        drives = {agent: (joint,) for joint, agent in enumerate(agents)}
        super().__init__(env, HORIZON, observes, drives, walks=False)

    def references(self) -> dict[str, float]:
        """Mean undiscounted returns of uniformly random torques and of the noise-free expert.

        Measured over 5000 episodes each on mujoco 4.0 (standard errors 0.05 and 0.03), the expert's half with each
        bend of the elbow. The expert is the controller of ``datamodules.builders.behaviours``. It needs nothing that an
        ``independent`` agent cannot see, and it is not the optimum: a normalised score may exceed 1. A ``leader``
        team, whose agent_1 does not see the target, is held to the same reference.
        """
        return {"random": -42.84, "expert": -5.65}
