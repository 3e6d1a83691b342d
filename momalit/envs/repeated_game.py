"""Games of one round, played repeatedly: agents observe the actions of the previous round."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

from momalit.core.checks import require_choice
from momalit.core.symmetries import Parts, Symmetry
from momalit.core.team import STATE

OBSERVABILITIES = ("all", "own")


class RepeatedGame(ParallelEnv):
    """A deterministic team game of ``horizon`` rounds, whose state is the previous round's actions.

    Subclasses say how an agent's action is encoded in the state, and what the team scores.

    Args:
        action_spaces: the action space of each agent, in order.
        columns: columns of an agent's encoded action, which are 0 before the first round.
        low: smallest value of these columns; the largest is 1.
        horizon: rounds per episode.
        observability: with ``all`` every agent observes the state, with ``own`` only its own previous action.

    Raises:
        UserError: a setting is invalid.
    """

    metadata: ClassVar[dict[str, Any]] = {"name": "repeated_game", "render_modes": [], "is_parallelizable": True}
    render_mode = None

    def __init__(
        self, action_spaces: list[spaces.Space[Any]], columns: int, low: float, horizon: int, observability: str
    ) -> None:
        require_choice("env.observability", observability, OBSERVABILITIES)
        n_agents = len(action_spaces)
        self.horizon = horizon
        self.possible_agents = [f"agent_{i}" for i in range(n_agents)]
        self.agents: list[str] = []
        own = [tuple(range(i * columns, (i + 1) * columns)) for i in range(n_agents)]
        self._observes_all = observability == "all"
        everything = tuple(range(n_agents * columns))
        self.observes = {
            agent: everything if self._observes_all else own[i] for i, agent in enumerate(self.possible_agents)
        }
        self.state_space = spaces.Box(low, 1.0, (n_agents * columns,), np.float32)
        self._observation_spaces = {
            agent: spaces.Box(low, 1.0, (len(observed),), np.float32) for agent, observed in self.observes.items()
        }
        self._action_spaces = dict(zip(self.possible_agents, action_spaces, strict=True))
        self._state = np.zeros(n_agents * columns, np.float32)
        self._time = 0

    def encode(self, actions: list[Any]) -> np.ndarray:
        """Returns the state after a round, ``(n_agents * columns,)``."""
        raise NotImplementedError

    def reward(self, actions: list[Any]) -> float:
        """Returns the team's reward for the actions of one round."""
        raise NotImplementedError

    def observation_space(self, agent: str) -> spaces.Box:
        return self._observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return self._action_spaces[agent]

    def state(self) -> np.ndarray:
        return self._state.copy()

    def reset(
        self,
        seed: int | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[dict[str, np.ndarray], dict[str, dict[str, Any]]]:
        """Starts an episode. The game is deterministic, so ``seed`` has no effect."""
        self.agents = list(self.possible_agents)
        self._time = 0
        self._state = np.zeros_like(self._state)
        return self._observations(), {agent: {} for agent in self.agents}

    def step(
        self, actions: dict[str, Any]
    ) -> tuple[dict[str, np.ndarray], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Plays one round. The episode is truncated after ``horizon`` rounds."""
        agents = self.agents
        played = [actions[agent] for agent in agents]
        self._state = self.encode(played)
        self._time += 1
        reward, truncated = self.reward(played), self._time >= self.horizon
        observations = self._observations()
        if truncated:
            self.agents = []
        return (
            observations,
            dict.fromkeys(agents, reward),
            dict.fromkeys(agents, False),
            dict.fromkeys(agents, truncated),
            {agent: {} for agent in agents},
        )

    def _neighbours_exchanged(self, i: int) -> Symmetry:
        """Agents ``i`` and ``i + 1`` exchange their actions, for games in which all agents are alike."""
        order = list(range(len(self.possible_agents)))
        order[i : i + 2] = i + 1, i

        def exchanged(observations: Parts, actions: Parts) -> tuple[Parts, Parts]:
            state = observations[STATE].reshape(len(order), -1)[order].ravel()
            return {STATE: state}, {agent: actions[self.possible_agents[order[k]]] for k, agent in enumerate(actions)}

        return exchanged

    def _observations(self) -> dict[str, np.ndarray]:
        if self._observes_all:
            return {agent: self._state.copy() for agent in self.agents}
        parts = self._state.reshape(len(self.agents), -1).copy()
        return dict(zip(self.agents, parts, strict=True))
