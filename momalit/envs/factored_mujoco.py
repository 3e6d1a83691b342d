"""Gymnasium's MuJoCo robots with their actuators divided among a team of agents."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

from momalit.core.checks import require_choice, require_integers
from momalit.core.errors import UserError
from momalit.envs.changed_dynamics import change_dynamics
from momalit.envs.rendering import track_robot

RENDER_MODES = ("rgb_array", "human")
# Excluded scenarios of Multi-Agent MuJoCo: those with observations that are not columns of the state (Reacher, Pusher,
# ManySegmentAnt), those with one agent, those with a variable number of segments and one that MuJoCo 4 cannot run.
FACTORINGS: dict[str, tuple[str, ...]] = {
    "Ant": ("4x2", "2x4", "2x4d"),
    "HalfCheetah": ("2x3", "6x1"),
    "Hopper": ("3x1",),
    "Humanoid": ("9|8",),
    "HumanoidStandup": ("9|8",),
    "Swimmer": ("2x1",),
    "Walker2d": ("2x3",),
}


class FactoredMujoco(ParallelEnv):
    """One robot as a team: every agent observes columns of the robot's observation and controls some actuators.

    The state is the robot's observation as float32. All agents receive the robot's reward and end together. Episodes
    terminate when the robot's environment terminates and are truncated after ``horizon`` steps.

    Args:
        env: gymnasium's environment without wrappers.
        horizon: steps after which an episode is truncated.
        observes: the observed columns of the state, per agent.
        drives: the actuators, in the order of the action, per agent. Each actuator belongs to exactly one agent.
        walks: whether the robot moves, so that the camera tracks it.
        dynamics: changes of the robot, see ``change_dynamics``; None for none.
    """

    metadata: ClassVar[dict[str, Any]] = {
        "name": "factored_mujoco",
        "render_modes": list(RENDER_MODES),
        "is_parallelizable": True,
    }

    def __init__(
        self,
        env: Any,
        horizon: int,
        observes: Mapping[str, Sequence[int]],
        drives: Mapping[str, Sequence[int]],
        walks: bool = True,
        dynamics: Mapping[str, float] | None = None,
    ) -> None:
        self._env = env
        if dynamics:
            change_dynamics(env, dynamics)
        self.horizon = horizon
        self.render_mode: str | None = env.render_mode
        self.metadata = {**self.metadata, "render_fps": env.metadata["render_fps"]}  # type: ignore[misc]
        self.possible_agents = list(observes)
        self.agents: list[str] = []
        self.observes = {agent: tuple(int(column) for column in columns) for agent, columns in observes.items()}
        self.drives = {agent: tuple(int(actuator) for actuator in drives[agent]) for agent in observes}
        self._index = {agent: np.array(columns) for agent, columns in self.observes.items()}
        self._slots = {agent: np.array(actuators) for agent, actuators in self.drives.items()}
        self._joint_slots = np.concatenate(list(self._slots.values()))
        self._low = env.action_space.low.astype(np.float64)
        self._high = env.action_space.high.astype(np.float64)
        size = int(env.observation_space.shape[0])
        self.state_space = spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self._observation_spaces = {
            agent: spaces.Box(-np.inf, np.inf, (len(columns),), np.float32) for agent, columns in self.observes.items()
        }
        self._action_spaces = {
            agent: spaces.Box(env.action_space.low[slots], env.action_space.high[slots], dtype=np.float32)
            for agent, slots in self._slots.items()
        }
        self._state = np.zeros(size, np.float32)
        self._control = np.zeros(len(self._low), np.float64)
        self._time = 0
        if walks and self.render_mode is not None:
            track_robot(env)

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
        """Starts an episode. Without a seed, the environment continues its random stream."""
        observation, _ = self._env.reset(seed=seed)
        self._state = observation.astype(np.float32)
        self._time = 0
        self.agents = list(self.possible_agents)
        return self._observations(), {agent: {} for agent in self.agents}

    def step(
        self, actions: dict[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Applies the agents' actions, clipped to their bounds for both simulation and control cost."""
        agents = self.agents
        if not agents:
            return {}, {}, {}, {}, {}
        for agent, slots in self._slots.items():
            self._control[slots] = actions[agent]
        reward, terminated, truncated = self._simulate()
        return (
            self._observations(),
            dict.fromkeys(agents, reward),
            dict.fromkeys(agents, terminated),
            dict.fromkeys(agents, truncated),
            {agent: {} for agent in agents},
        )

    def step_joint(self, action: np.ndarray) -> tuple[float, bool, bool]:
        """A faster ``step`` without dictionaries, for callers that read only ``state()``.

        Call it only during an episode.

        Args:
            action: all agents' actions, concatenated, ``(actuators,)``.

        Returns:
            the reward of each agent, and whether the episode terminated and whether it was truncated.
        """
        self._control[self._joint_slots] = action
        return self._simulate()

    def render(self) -> np.ndarray | None:
        return self._env.render()

    def close(self) -> None:
        self._env.close()

    def _simulate(self) -> tuple[float, bool, bool]:
        control = self._control
        np.minimum(np.maximum(control, self._low, out=control), self._high, out=control)
        observation, reward, terminated, _, _ = self._env.step(control)
        self._state = observation.astype(np.float32)
        self._time += 1
        truncated = self._time >= self.horizon
        if terminated or truncated:
            self.agents = []
        return float(reward), bool(terminated), truncated

    def _observations(self) -> dict[str, np.ndarray]:
        return {agent: self._state[index] for agent, index in self._index.items()}


class MultiAgentMujoco(FactoredMujoco):
    """A scenario of Multi-Agent MuJoCo.

    Episodes are truncated after 1000 steps and terminate as in gymnasium's environment.

    gymnasium-robotics defines which columns of the state each agent observes and which actuators it controls; only
    gymnasium's environment is then stepped. Its observation is the state, so agents observe the clipped values
    (velocities of Walker2d in [-10, 10], which gymnasium-robotics does not clip). All agents receive its default
    reward.

    Args:
        scenario: the robot, a key of ``FACTORINGS``.
        factoring: how its actuators are divided, one of that robot's ``FACTORINGS``.
        obsk: how far an agent observes beyond its own joints, in joints along the body.
        render_mode: None, ``rgb_array`` or ``human``.
        dynamics: changes of the robot, e.g. ``{"mass": 1.3}``, see ``change_dynamics``; None for none.

    Raises:
        UserError: a setting is invalid, or gymnasium-robotics is not installed.
    """

    metadata: ClassVar[dict[str, Any]] = {**FactoredMujoco.metadata, "name": "mamujoco"}

    def __init__(
        self,
        scenario: str,
        factoring: str,
        obsk: int = 1,
        render_mode: str | None = None,
        dynamics: Mapping[str, float] | None = None,
    ) -> None:
        require_choice("env.scenario", scenario, tuple(FACTORINGS))
        require_choice("env.factoring", factoring, FACTORINGS[scenario])
        require_choice("env.render_mode", render_mode, (None, *RENDER_MODES))
        require_integers("env.", {"obsk": obsk}, 0)
        try:
            mamujoco = importlib.import_module("gymnasium_robotics").mamujoco_v1
        except ImportError as error:
            raise UserError(
                f"env mamujoco: found no gymnasium-robotics ({error}), expected pip install 'momalit[mamujoco]'"
            ) from error
        original = mamujoco.parallel_env(scenario, factoring, obsk, render_mode=render_mode)
        env = original.single_agent_env
        super().__init__(
            env.unwrapped,
            env.spec.max_episode_steps,
            original.map_global_state_to_local_observations(np.arange(env.observation_space.shape[0])),
            original.map_global_action_to_local_actions(np.arange(env.action_space.shape[0])),
            dynamics=dynamics,
        )
