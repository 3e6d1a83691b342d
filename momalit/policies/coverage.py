"""How far from the log a team walks: where it gets to in the real environment, and how near the log has been."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from momalit.core.records import Step
from momalit.core.trajectories import Trajectories

MOST_VISITED, MOST_LOGGED = 2_000, 20_000


class VisitRecorder:
    """Takes down the states and joint actions of the episodes of an environment."""

    def __init__(self) -> None:
        self._env: Any = None
        self._parts: list[Tensor] = []

    def of(self, env: Any) -> VisitRecorder:
        """The environment, a ``VectorTeamEnv``, to be played in place of it."""
        self._env = env
        return self

    def reset(self, seeds: list[int]) -> Tensor:
        """As the environment's; forgets what was there."""
        self._parts = []
        self._state: Tensor = self._env.reset(seeds)
        return self._state

    def step(self, action: Tensor) -> Step:
        """As the environment's."""
        now = torch.cat([self._state, action.flatten(1)], 1)  # before the environment writes over its own tensors
        step: Step = self._env.step(action)
        self._parts.append(now[step.valid])
        self._state = step.state
        return step

    @property
    def visited(self) -> Tensor:
        """States and joint actions, side by side, ``(N, S + A U)``."""
        return torch.cat(self._parts) if self._parts else torch.zeros(0, 0)


def distance_to_data(visited: Tensor, train: Trajectories, held_out: Trajectories) -> float | None:
    """How far a team's states and actions are from the nearest ones of the log, as a multiple of held-out ones.

    Distances are Euclidean, in deviations of the training split. The log's own held-out episodes, which are as near to
    it as a team can be that does what the log's teams did, are at 1.

    Args:
        visited: states and joint actions ``(N, S + A U)`` of real episodes; some 2,000 of them are looked at.
        train: the log that the team learnt from; some 20,000 of its steps are looked at.
        held_out: episodes of the same log that nothing learnt from.

    Returns:
        None where nothing was visited or held out, or where what is held out repeats the log exactly.
    """
    if not len(visited) or not len(held_out):
        return None
    logged = _steps(train, MOST_LOGGED)
    spread = logged.std(0, correction=0)
    varies = spread > 1e-6 * logged.abs().amax(0).clamp(min=1e-6)
    scale = torch.where(varies, spread, 1.0)
    near, far = (
        torch.cdist((rows / scale)[:, varies], (logged / scale)[:, varies]).amin(1).mean()
        for rows in (_steps(held_out, MOST_VISITED), visited[_spread(len(visited), MOST_VISITED)].to(logged))
    )
    return float(far / near) if near > 0 else None


def _steps(data: Trajectories, most: int) -> Tensor:
    """States and joint actions of steps spread evenly over the data."""
    index = _spread(len(data), most)
    return torch.cat([data.state[data.row[index]], data.action[index].flatten(1)], 1).cpu()


def _spread(n: int, most: int) -> Tensor:
    return torch.linspace(0, n - 1, min(n, most)).round().long()
