"""Symmetries of mpe2's games: the plane has no directions, and team mates are all alike, and so are landmarks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from momalit.core.symmetries import Parts, Symmetry
from momalit.core.team import STATE

Rows = list[np.ndarray]  # the observation of each agent


@dataclass(frozen=True)
class ParticleGame:
    """What the columns of a game are.

    Every agent observes vectors of two components: its velocity and position, where the landmarks are from there, and
    where the others are. What comes after that depends on the game. The state is all agents' observations in a row.

    Args:
        agents: number of all agents; those of the team come first.
        team: number of agents in the team.
        landmarks: number of landmarks.
        words: number of last columns of an observation that are not vectors, and are always 0.
    """

    agents: int
    team: int
    landmarks: int
    words: int = 0

    def symmetries(self) -> list[Symmetry]:
        """A quarter turn, a mirror image, and exchanges of neighbours in the team and of neighbouring landmarks."""
        return [
            self._seen(np.array([[0.0, 1.0], [-1.0, 0.0]])),
            self._seen(np.array([[1.0, 0.0], [0.0, -1.0]])),
            *(self._team_mates_exchanged(i) for i in range(self.team - 1)),
            *(self._landmarks_exchanged(i) for i in range(self.landmarks - 1)),
        ]

    def _seen(self, view: np.ndarray) -> Symmetry:
        def of_vectors(columns: np.ndarray) -> np.ndarray:
            return (columns.reshape(-1, 2) @ view).ravel()

        def of_row(row: np.ndarray) -> np.ndarray:
            end = len(row) - self.words
            return np.concatenate([of_vectors(row[:end]), row[end:]])

        def seen(observations: Parts, actions: Parts) -> tuple[Parts, Parts]:
            forces = {name: np.concatenate([of_vectors(action[:2]), action[2:]]) for name, action in actions.items()}
            return self._changed(observations, lambda rows: [of_row(row) for row in rows]), forces

        return seen

    def _team_mates_exchanged(self, i: int) -> Symmetry:
        order = list(range(self.agents))
        order[i : i + 2] = i + 1, i

        def of_row(rows: Rows, agent: int) -> np.ndarray:
            begin = 4 + 2 * self.landmarks
            before = [other for other in range(self.agents) if other != order[agent]]
            others = [before.index(order[other]) for other in range(self.agents) if other != agent]
            row = rows[order[agent]].copy()
            row[begin : begin + 2 * len(others)] = row[begin : begin + 2 * len(others)].reshape(-1, 2)[others].ravel()
            return row

        def exchanged(observations: Parts, actions: Parts) -> tuple[Parts, Parts]:
            forces = list(actions.values())
            return (
                self._changed(observations, lambda rows: [of_row(rows, agent) for agent in range(len(rows))]),
                {name: forces[order[k]] for k, name in enumerate(actions)},
            )

        return exchanged

    def _landmarks_exchanged(self, i: int) -> Symmetry:
        def of_row(row: np.ndarray) -> np.ndarray:
            row, at = row.copy(), 4 + 2 * i
            row[at : at + 4] = np.roll(row[at : at + 4], 2)
            return row

        def exchanged(observations: Parts, actions: Parts) -> tuple[Parts, Parts]:
            return self._changed(observations, lambda rows: [of_row(row) for row in rows]), actions

        return exchanged

    def _changed(self, observations: Parts, change: Callable[[Rows], Rows]) -> dict[str, np.ndarray]:
        """Changes the observations of the team, and those of all agents in the state."""
        team = [key for key in observations if key != STATE]
        mine, state = [observations[name] for name in team], observations[STATE]
        width, others = len(mine[0]), self.agents - self.team
        ends = [width * (k + 1) for k in range(self.team)]
        rest = (len(state) - ends[-1]) // max(others, 1)
        ends += [ends[-1] + rest * (k + 1) for k in range(others)]
        return {STATE: np.concatenate(change(np.split(state, ends[:-1]))), **dict(zip(team, change(mine), strict=True))}
