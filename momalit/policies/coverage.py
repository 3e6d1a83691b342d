"""Distance between the states and actions that a team visits in the real environment and those of its dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from momalit.core.records import Step, Transitions
from momalit.core.trajectories import Trajectories
from momalit.functional.statistics import evenly_spaced

MAX_VISITED, MAX_DATASET = 2_000, 20_000
ROWS = 250  # whose distances are in memory at once
_NAMES = [field.name for field in fields(Transitions)]
FAR = 0.99  # quantile of held-out distances beyond which a step is far from the data
NEAR = 0.05  # a distance that never is: an accurate model's version of a step that the data repeat


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

    def alone(self) -> VisitRecorder:
        """Returns the records without the environment."""
        return VisitRecorder.joined([self])

    @classmethod
    def joined(cls, recorders: Sequence[VisitRecorder]) -> VisitRecorder:
        """Returns the records of episodes that several recorders saw, as if all had run side by side."""
        joined = cls()
        for parts in zip_longest(*(recorder._parts for recorder in recorders)):
            known = [part for part in parts if part is not None]
            joined._parts.append(Transitions(*(torch.cat([getattr(part, name) for part in known]) for name in _NAMES)))
        return joined

    @property
    def transitions(self) -> Transitions | None:
        """The recorded transitions, in the order of time; None before the first step."""
        if not self._parts:
            return None
        return Transitions(*(torch.cat([getattr(part, name) for part in self._parts]) for name in _NAMES))

    @property
    def rewards(self) -> list[Tensor]:
        """The rewards of the running episodes at every time step."""
        return [part.reward for part in self._parts]

    @property
    def visited(self) -> Tensor:
        """Recorded states, each concatenated with its joint action, ``(N, S + A U)``."""
        recorded = self.transitions
        return torch.zeros(0, 0) if recorded is None else torch.cat([recorded.state, recorded.action.flatten(1)], 1)


class DataSupport:
    """What a dataset covers: how far its held-out steps are from its training steps, and how far others are.

    A step's distance is the Euclidean distance of state and joint action to the nearest training step, in standard
    deviations of the training split. Constant dimensions are left out.

    Args:
        train: training split; at most 20,000 of its steps are used.
        held_out: episodes of the same dataset that were not used for training; at most 2,000 steps are used.
    """

    def __init__(self, train: Trajectories, held_out: Trajectories) -> None:
        dataset = _steps(train, MAX_DATASET)
        std = dataset.std(0, correction=0)
        self._varies = std > 1e-6 * dataset.abs().amax(0).clamp(min=1e-6)
        self._scale = torch.where(self._varies, std, 1.0)
        self._dataset = (dataset / self._scale)[:, self._varies]
        self.held_out = self.distances(_steps(held_out, MAX_VISITED))
        self._limit = self.held_out.quantile(FAR).clamp(min=NEAR)

    def distances(self, visited: Tensor) -> Tensor:
        """Distances of states and joint actions ``(N, S + A U)`` to the training steps, ``(N,)``."""
        points = (visited.to(self._dataset) / self._scale)[:, self._varies]
        return torch.cat([self._nearest(part) for part in points.split(ROWS)])

    def _nearest(self, points: Tensor) -> Tensor:
        # cdist rounds, and would see a small distance between equal steps; it only finds the neighbours.
        neighbours = self._dataset[torch.cdist(points, self._dataset).argmin(1)]
        return torch.linalg.vector_norm(points - neighbours, dim=1)

    def far(self, visited: Tensor) -> Tensor:
        """Whether states and joint actions ``(N, S + A U)`` are farther away than 99 % of the held-out steps.

        Distances of less than 0.05 are not far, even where the dataset repeats itself and all held-out ones are 0.
        """
        return self.distances(visited) > self._limit


def distance_to_data(visited: Tensor, train: Trajectories, held_out: Trajectories) -> float | None:
    """How far a team's states and actions are from the dataset, as a multiple of the distance of held-out episodes.

    Both are mean distances to the training split (see ``DataSupport``). At 1 the team stays as close to the dataset as
    the behaviour policies in the held-out episodes.

    Args:
        visited: states and joint actions ``(N, S + A U)`` of real episodes; at most 2,000 of them are used.
        train: training split of the team's dataset.
        held_out: episodes of the same dataset that were not used for training.

    Returns:
        the ratio, or None if nothing was visited or held out, or if the held-out steps all duplicate training
            steps.
    """
    if not len(visited) or not len(held_out):
        return None
    support = DataSupport(train, held_out)
    held_out_distance = support.held_out.mean()
    distance = support.distances(visited[evenly_spaced(len(visited), MAX_VISITED)]).mean()
    return float(distance / held_out_distance) if held_out_distance > 0 else None


def _steps(data: Trajectories, count: int) -> Tensor:
    """Returns states and joint actions of at most ``count`` evenly spaced steps, ``(N, S + A U)``."""
    index = evenly_spaced(len(data), count)
    return torch.cat([data.state[data.row[index]], data.action[index].flatten(1)], 1).cpu()
