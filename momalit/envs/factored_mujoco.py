"""Gymnasium's MuJoCo robots, their actuators shared out among a team."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

from momalit.core.errors import UserError
from momalit.envs.rendering import follow

RENDER_MODES = ("rgb_array", "human")
# Left out of Multi-Agent MuJoCo's scenarios: those whose agents see what no column of the state holds (Reacher, Pusher,
# ManySegmentAnt), those for one agent, those for any number of segments and one that MuJoCo 4 does not run.
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
    """One robot as a team: every agent sees columns of the robot's observation and drives some of its actuators.

    The state is the robot's observation as float32. All agents get the robot's reward and end together: terminated
    when the robot says so, truncated after ``horizon`` steps.

    Args:
        env: gymnasium's environment without wrappers.
        horizon: steps after which an episode is truncated.
        observes: per agent, the columns of the state.
        drives: per agent, the actuators in the order of its action; together each actuator once.
        walks: the camera goes along with it.
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
    ) -> None:
        self._env = env
        self.horizon = horizon
        self.render_mode: str | None = env.render_mode
        self.metadata = {**self.metadata, "render_fps": env.metadata["render_fps"]}  # type: ignore[misc]
        self.possible_agents = list(observes)
        self.agents: list[str] = []
        self.observes = {agent: tuple(int(column) for column in seen) for agent, seen in observes.items()}
        self.drives = {agent: tuple(int(actuator) for actuator in drives[agent]) for agent in observes}
        self._index = {agent: np.array(seen) for agent, seen in self.observes.items()}
        self._slots = {agent: np.array(driven) for agent, driven in self.drives.items()}
        self._joint_slots = np.concatenate(list(self._slots.values()))
        self._low = env.action_space.low.astype(np.float64)
        self._high = env.action_space.high.astype(np.float64)
        size = int(env.observation_space.shape[0])
        self.state_space = spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self._observation_spaces = {
            agent: spaces.Box(-np.inf, np.inf, (len(seen),), np.float32) for agent, seen in self.observes.items()
        }
        self._action_spaces = {
            agent: spaces.Box(env.action_space.low[slots], env.action_space.high[slots], dtype=np.float32)
            for agent, slots in self._slots.items()
        }
        self._state = np.zeros(size, np.float32)
        self._control = np.zeros(len(self._low), np.float64)
        self._time = 0
        if walks and self.render_mode is not None:
            follow(env)

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
        return self._observations(), {agent: {} for agent in self.agents}

    def step(
        self, actions: dict[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Applies the agents' actions, clipped to their bounds (simulation and control cost see the same)."""
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
        """``step`` without dictionaries, for many steps of which only ``state()`` is read.

        Args:
            action: all agents' actions one after the other, ``(actuators,)``. An episode must be under way.

        Returns:
            every agent's reward, and whether the episode terminated or was truncated.
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
    """A factoring of Multi-Agent MuJoCo by name; 1000 steps, terminates where gymnasium's environment does.

    gymnasium-robotics is asked once which columns of the state each agent sees and which actuators it drives; after
    that gymnasium's environment is stepped alone. Its observation is the state, so that agents see what it clips as it
    clips it (velocities of Walker2d in [-10, 10], which gymnasium-robotics leaves as they are). All agents get its
    default reward.

    Args:
        scenario: the robot, a key of ``FACTORINGS``.
        factoring: how it is shared out, one of that robot's ``FACTORINGS``.
        obsk: up to which distance, in joints along the body, an agent sees more than its own joints.
        render_mode: None, ``rgb_array`` or ``human``.

    Raises:
        UserError: a setting is outside its range, or gymnasium-robotics is not installed.
    """

    metadata: ClassVar[dict[str, Any]] = {**FactoredMujoco.metadata, "name": "mamujoco"}

    def __init__(self, scenario: str, factoring: str, obsk: int = 1, render_mode: str | None = None) -> None:
        checked("scenario", scenario, tuple(FACTORINGS))
        checked("factoring", factoring, FACTORINGS[scenario])
        checked("render_mode", render_mode, (None, *RENDER_MODES))
        if isinstance(obsk, bool) or not isinstance(obsk, int) or obsk < 0:
            raise UserError(f"env.obsk: found {obsk!r}, expected an integer of at least 0")
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
        )


def checked(key: str, value: Any, known: Sequence[Any]) -> Any:
    """The value of a setting, if it is one of those that are known.

    Raises:
        UserError: it is not.
    """
    if value not in known:
        names = ", ".join("null" if name is None else str(name) for name in known)
        raise UserError(f"env.{key}: found {value!r}, expected one of {names}")
    return value
