"""Two-agent Reacher: each agent drives one joint of an arm whose fingertip is to reach a target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

from momalit.errors import UserError

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


class Reacher(ParallelEnv):
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

    metadata: ClassVar[dict[str, Any]] = {
        "name": "reacher",
        "render_modes": ["rgb_array", "human"],
        "render_fps": 50,
        "is_parallelizable": True,
    }
    horizon = HORIZON
    state_leads = (11,)  # widths of other versions' observations that begin with the state: v2 and v4

    def __init__(self, observability: str = "full", render_mode: str | None = None) -> None:
        if observability not in OBSERVES:
            raise UserError(f"env.observability: found {observability!r}, expected one of {', '.join(OBSERVES)}")
        if render_mode not in (None, "rgb_array", "human"):
            raise UserError(f"env.render_mode: found {render_mode!r}, expected null, rgb_array or human")
        self.render_mode = render_mode
        # Checks and time limit are done here once, so the wrappers would only cost time.
        made: Any = gymnasium.make(
            "Reacher-v5", render_mode=render_mode, default_camera_config=FROM_ABOVE, disable_env_checker=True
        )
        self._env: Any = made.unwrapped
        if render_mode is not None:
            self._env.model.vis.headlight.ambient[:] = 0.4  # the model has no lamp of its own
        self.possible_agents = ["agent_0", "agent_1"]
        self.agents: list[str] = []
        self.observes = dict(zip(self.possible_agents, OBSERVES[observability], strict=True))
        self.drives = {agent: (joint,) for joint, agent in enumerate(self.possible_agents)}
        self._index = {agent: np.array(seen) for agent, seen in self.observes.items()}
        self.state_space = spaces.Box(-np.inf, np.inf, (10,), np.float32)
        self._observation_spaces = {
            agent: spaces.Box(-np.inf, np.inf, (len(seen),), np.float32) for agent, seen in self.observes.items()
        }
        self._action_spaces = {agent: spaces.Box(-1.0, 1.0, (1,), np.float32) for agent in self.possible_agents}
        self._state = np.zeros(10, np.float32)
        self._torque = np.zeros(2, np.float64)
        self._time = 0

    def observation_space(self, agent: str) -> spaces.Box:
        return self._observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Box:
        return self._action_spaces[agent]

    def state(self) -> np.ndarray:
        return self._state.copy()

    def reset(
        self,
        seed: int | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[dict[str, np.ndarray], dict[str, dict[str, Any]]]:
        """Starts an episode from the seed, or from where the random stream stands if there is none."""
        observation, _ = self._env.reset(seed=seed)
        self._state = observation.astype(np.float32)
        self._time = 0
        self.agents = list(self.possible_agents)
        return self._observations(self.agents), {agent: {} for agent in self.agents}

    def step(
        self, actions: dict[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Applies both torques, clipped to [-1, 1] (simulation and cost see the same)."""
        agents = self.agents
        reward, terminated, truncated = self.step_joint([actions[agent][0] for agent in agents])
        return (
            self._observations(agents),
            dict.fromkeys(agents, reward),
            dict.fromkeys(agents, terminated),
            dict.fromkeys(agents, truncated),
            {agent: {} for agent in agents},
        )

    def step_joint(self, action: Sequence[float] | np.ndarray) -> tuple[float, bool, bool]:
        """``step`` without dictionaries, for many steps of which only ``state()`` is read.

        Args:
            action: both torques. An episode must be under way.

        Returns:
            either agent's reward, and whether the episode terminated (never) or was truncated.
        """
        for joint, torque in enumerate(action):
            self._torque[joint] = min(1.0, max(-1.0, float(torque)))
        observation, reward, _, _, _ = self._env.step(self._torque)
        self._state = observation.astype(np.float32)
        self._time += 1
        truncated = self._time >= HORIZON
        if truncated:
            self.agents = []
        return float(reward), False, truncated

    def render(self) -> np.ndarray | None:
        return self._env.render()

    def close(self) -> None:
        self._env.close()

    def references(self) -> dict[str, float]:
        """Mean undiscounted returns of uniformly random torques and of the noise-free expert.

        Measured over 5000 episodes each on mujoco 4.0 (standard errors 0.05 and 0.03), the expert's half with each
        bend of the elbow. The expert is the controller of ``datamodules.experts``. It needs nothing that an
        ``independent`` agent cannot see, and it is not the optimum: a normalised score may exceed 1. A ``leader``
        team, whose agent_1 does not see the target, is held to the same reference.
        """
        return {"random": -42.84, "expert": -5.65}

    def _observations(self, agents: list[str]) -> dict[str, np.ndarray]:
        return {agent: self._state[self._index[agent]] for agent in agents}
