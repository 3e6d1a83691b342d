"""Ridge game: a coordination game with continuous actions, in which the average of two good joint actions is bad."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from momalit.core.checks import require_integers, require_numbers
from momalit.core.symmetries import Parts
from momalit.core.team import STATE
from momalit.envs.repeated_game import RepeatedGame

RIDGE = 0.5  # the mean action on a ridge is this or its negative
GRID = 400  # steps per unit of the grid on which the density of the mean action is computed


class RidgeGame(RepeatedGame):
    """``n_agents`` agents choose a number in [-1, 1] in each of ``horizon`` steps; two means of them are good.

    The reward is exp(-((|m| - 1/2) / width)^2 / 2), where m is the mean of the actions: 1 on the ridges m = 1/2 and
    m = -1/2, and almost nothing at m = 0, between them. The state is all agents' previous actions, ``(n_agents,)``;
    initially zero.

    Args:
        n_agents: number of agents, at least 2.
        horizon: steps per episode.
        width: width of the ridges, a standard deviation.
        observability: with ``all`` every agent observes the state, with ``own`` only its own previous action.

    Raises:
        UserError: a setting is invalid.
    """

    metadata: ClassVar[dict[str, Any]] = {**RepeatedGame.metadata, "name": "ridges"}

    def __init__(self, n_agents: int = 2, horizon: int = 10, width: float = 0.15, observability: str = "all") -> None:
        require_integers("env.", {"n_agents": n_agents}, 2)
        require_integers("env.", {"horizon": horizon}, 1)
        require_numbers("env.", {"width": width}, above=0)
        numbers: list[spaces.Space[Any]] = [spaces.Box(-1.0, 1.0, (1,), np.float32) for _ in range(n_agents)]
        super().__init__(numbers, 1, -1.0, horizon, observability)
        self.width = float(width)
        self.symmetries = (_negated, *(self._neighbours_exchanged(i) for i in range(n_agents - 1)))

    def encode(self, actions: list[np.ndarray]) -> np.ndarray:
        return np.concatenate(actions).clip(-1.0, 1.0).astype(np.float32)

    def reward(self, actions: list[np.ndarray]) -> float:
        return float(self._height(self.encode(actions).mean(dtype=np.float64)))

    def references(self) -> dict[str, float]:
        """Returns the expected returns of uniformly random actions, to 1e-3 of a step's reward, and of the optimum.

        The density of the mean of uniform actions is computed by convolution on a grid.
        """
        n_agents = len(self.possible_agents)
        one = np.full(2 * GRID, 1 / (2 * GRID))  # midpoints of cells between -1 and 1
        density = one
        for _ in range(n_agents - 1):
            density = np.convolve(density, one)
        mean = (np.arange(len(density)) - (len(density) - 1) / 2) / (GRID * n_agents)
        return {"random": float(self.horizon * (density * self._height(mean)).sum()), "expert": float(self.horizon)}

    def _height(self, mean: np.ndarray) -> np.ndarray:
        return np.exp(-(((np.abs(mean) - RIDGE) / self.width) ** 2) / 2)


def _negated(observations: Parts, actions: Parts) -> tuple[Parts, Parts]:
    """One ridge for the other."""
    return {STATE: -observations[STATE]}, {agent: -action for agent, action in actions.items()}
