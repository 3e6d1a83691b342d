"""Iterated Coordination Game: the team is rewarded when its agents choose the same action."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

from momalit.core.checks import require_choice
from momalit.core.errors import UserError

PAYOFFS = ("all", "pairs")
OBSERVABILITIES = ("all", "own")


class CoordinationGame(ParallelEnv):
    """A matrix game: ``n_agents`` agents simultaneously choose one of ``n_actions`` in each of ``horizon`` steps.

    The state is the one-hot encoding of all agents' previous actions, ``(n_agents * n_actions,)``; initially zero.

    Args:
        n_agents: number of agents, at least 2.
        n_actions: number of actions K, each a possible convention, at least 2.
        horizon: steps per episode.
        payoff: ``all`` rewards if all agents choose the same action, ``pairs`` rewards the fraction of matching pairs.
        convention_payoff: reward for agreement on each of the K actions; 1 each by default.
        observability: with ``all`` every agent observes the state, with ``own`` only its own previous action.

    Raises:
        UserError: a setting is invalid.
    """

    metadata: ClassVar[dict[str, Any]] = {"name": "icg", "render_modes": [], "is_parallelizable": True}
    render_mode = None

    def __init__(
        self,
        n_agents: int = 2,
        n_actions: int = 2,
        horizon: int = 10,
        payoff: str = "all",
        convention_payoff: Sequence[float] | None = None,
        observability: str = "all",
    ) -> None:
        for key, value, minimum in (("n_agents", n_agents, 2), ("n_actions", n_actions, 2), ("horizon", horizon, 1)):
            if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
                raise UserError(f"env.{key}: found {value!r}, expected an integer of at least {minimum}")
        require_choice("env.payoff", payoff, PAYOFFS)
        require_choice("env.observability", observability, OBSERVABILITIES)
        if convention_payoff is not None and len(convention_payoff) != n_actions:
            raise UserError(
                f"env.convention_payoff: found {len(convention_payoff)} values, expected n_actions = {n_actions}"
            )
        self.n_actions, self.horizon, self.payoff = n_actions, horizon, payoff
        self.convention_payoff = np.asarray(convention_payoff or [1.0] * n_actions, dtype=np.float64)
        self.possible_agents = [f"agent_{i}" for i in range(n_agents)]
        self.agents: list[str] = []
        columns = [tuple(range(i * n_actions, (i + 1) * n_actions)) for i in range(n_agents)]
        all_columns = tuple(range(n_agents * n_actions))
        self.observes = {
            agent: all_columns if observability == "all" else columns[i] for i, agent in enumerate(self.possible_agents)
        }
        self._observes_all = observability == "all"
        self.state_space = spaces.Box(0.0, 1.0, (n_agents * n_actions,), np.float32)
        self._observation_spaces = {
            agent: spaces.Box(0.0, 1.0, (len(observed),), np.float32) for agent, observed in self.observes.items()
        }
        self._action_spaces = {agent: spaces.Discrete(n_actions) for agent in self.possible_agents}
        self._n_pairs = n_agents * (n_agents - 1) / 2
        self._offsets = np.arange(n_agents) * n_actions
        self._state = np.zeros(n_agents * n_actions, np.float32)
        self._time = 0

    def observation_space(self, agent: str) -> spaces.Box:
        return self._observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Discrete:
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
        self, actions: dict[str, int]
    ) -> tuple[dict[str, np.ndarray], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Plays one round. The episode is truncated after ``horizon`` rounds."""
        agents = self.agents
        choices = np.fromiter((actions[agent] for agent in agents), dtype=np.int64, count=len(agents))
        self._state = np.zeros_like(self._state)
        self._state[self._offsets + choices] = 1.0
        self._time += 1
        reward, truncated = self.reward(choices), self._time >= self.horizon
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

    def reward(self, choices: np.ndarray) -> float:
        """Returns the team reward for the actions ``choices`` ``(n_agents,)`` of one round."""
        if self.payoff == "all":
            first = choices[0]
            return float(self.convention_payoff[first]) if (choices == first).all() else 0.0
        count = np.bincount(choices, minlength=self.n_actions)
        return float((self.convention_payoff * (count * (count - 1) / 2)).sum() / self._n_pairs)

    def references(self) -> dict[str, float]:
        """Returns the exact expected returns of uniformly random actions and of the optimum.

        All n agents choose action k with probability K^-n, and a given pair does with probability K^-2.
        """
        n_matching = len(self.possible_agents) if self.payoff == "all" else 2
        random = self.convention_payoff.sum() * float(self.n_actions) ** -n_matching
        return {"random": float(self.horizon * random), "expert": float(self.horizon * self.convention_payoff.max())}

    def _observations(self) -> dict[str, np.ndarray]:
        if self._observes_all:
            return {agent: self._state.copy() for agent in self.agents}
        parts = self._state.reshape(len(self.agents), self.n_actions).copy()
        return dict(zip(self.agents, parts, strict=True))
