"""Distance between the states and actions that a team visits in the real environment and those of its dataset."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from momalit.core.records import Step, Transitions
from momalit.core.trajectories import Trajectories

MAX_VISITED, MAX_DATASET = 2_000, 20_000


class VisitRecorder:
    """Wraps an environment and records the transitions of its episodes."""

    def __init__(self) -> None:
        self._env: Any = None
        self._parts: list[Transitions] = []

    def wrap(self, env: Any) -> VisitRecorder:
        """Returns a replacement for ``env``, a ``VectorTeamEnv``, that records its episodes."""
        self._env = env
        return self

    def reset(self, seeds: list[int]) -> Tensor:
        """Resets the environment and discards earlier records."""
        self._parts = []
        self._state: Tensor = self._env.reset(seeds)
        return self._state

    def step(self, action: Tensor) -> Step:
        """Steps the environment and records the steps of running episodes."""
        before = self._state.clone()  # before the environment overwrites its own tensors
        step: Step = self._env.step(action)
        taken = Transitions(before, action, step.reward, step.state, step.terminated)
        self._parts.append(taken.map(lambda tensor: tensor[step.valid]))
        self._state = step.state
        return step

    @property
    def transitions(self) -> Transitions | None:
        """The recorded transitions, in the order of time; None before the first step."""
        if not self._parts:
            return None
        names = [field.name for field in fields(Transitions)]
        return Transitions(*(torch.cat([getattr(part, name) for part in self._parts]) for name in names))

    @property
    def rewards(self) -> list[Tensor]:
        """The rewards of the running episodes at every time step."""
        return [part.reward for part in self._parts]

    @property
    def visited(self) -> Tensor:
        """Recorded states, each concatenated with its joint action, ``(N, S + A U)``."""
        recorded = self.transitions
        return torch.zeros(0, 0) if recorded is None else torch.cat([recorded.state, recorded.action.flatten(1)], 1)


def distance_to_data(visited: Tensor, train: Trajectories, held_out: Trajectories) -> float | None:
    """How far a team's states and actions are from the dataset, as a multiple of the distance of held-out episodes.

    Both are mean Euclidean distances to the nearest neighbour in the training split, in standard deviations of that
    split. At 1 the team stays as close to the dataset as the behaviour policies in the held-out episodes.

    Args:
        visited: states and joint actions ``(N, S + A U)`` of real episodes; at most 2,000 of them are used.
        train: training split of the team's dataset; at most 20,000 of its steps are used.
        held_out: episodes of the same dataset that were not used for training.

    Returns:
        the ratio, or None if nothing was visited or held out, or if the held-out steps all duplicate training
            steps.
    """
    if not len(visited) or not len(held_out):
        return None
    dataset = _steps(train, MAX_DATASET)
    std = dataset.std(0, correction=0)
    varies = std > 1e-6 * dataset.abs().amax(0).clamp(min=1e-6)
    scale = torch.where(varies, std, 1.0)
    held_out_distance, visited_distance = (
        torch.cdist((steps / scale)[:, varies], (dataset / scale)[:, varies]).amin(1).mean()
        for steps in (_steps(held_out, MAX_VISITED), visited[evenly_spaced(len(visited), MAX_VISITED)].to(dataset))
    )
    return float(visited_distance / held_out_distance) if held_out_distance > 0 else None


def _steps(data: Trajectories, count: int) -> Tensor:
    """Returns states and joint actions of at most ``count`` evenly spaced steps, ``(N, S + A U)``."""
    index = evenly_spaced(len(data), count)
    return torch.cat([data.state[data.row[index]], data.action[index].flatten(1)], 1).cpu()


def evenly_spaced(n: int, count: int) -> Tensor:
    """Returns at most ``count`` indices of n items, evenly spaced."""
    return torch.linspace(0, n - 1, min(n, count)).round().long()
