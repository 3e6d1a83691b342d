"""Policies for mpe2's simple_spread, as people might have left them in a log.

Every episode follows one of two conventions, who goes to which landmark, at a pace and with a
carelessness of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

N = 3
CONVENTIONS = ((0, 1, 2), (1, 2, 0))


class Spread:
    """Policies of one episode.

    An agent observes its velocity, its position, and where the landmarks are from there.

    Args:
        seed: seed of the episode's habits; None draws one.
        discrete: whether actions are numbers of moves instead of forces.
    """

    discrete = False
    paces, carelessnesses = (0.1, 1.0), (0.0, 0.6)

    def __init__(self, seed: int | None = None) -> None:
        self.random = np.random.default_rng(seed)
        self.convention = CONVENTIONS[self.random.integers(2)]
        self.pace = self.random.uniform(*self.paces)
        self.carelessness = self.random.uniform(*self.carelessnesses)
        self.rests = 0.0

    def __call__(self, observations: Mapping[str, np.ndarray]) -> dict[str, np.ndarray | int]:
        """Moves every agent towards its landmark."""
        return {
            name: self._move(observed, i)
            for i, (name, observed) in enumerate(observations.items())
        }

    def _move(self, observed: np.ndarray, agent: int) -> np.ndarray | int:
        velocity, landmarks = observed[:2], observed[4 : 4 + 2 * N].reshape(N, 2)
        wanted = 2.0 * landmarks[self.convention[agent]] - velocity
        force = np.clip(self.pace * wanted, -1, 1)
        if self.random.random() < self.carelessness:
            force = self.random.uniform(-1, 1, 2)
        if not self.discrete:
            return np.array(
                [0, max(-force[0], 0), max(force[0], 0), max(-force[1], 0), max(force[1], 0)]
            )
        axis = int(np.argmax(np.abs(force)))
        if np.abs(force[axis]) < 0.1 or (self.rests and self.random.random() < self.rests):
            return 0
        return 1 + 2 * axis + int(force[axis] > 0)


class DiscreteSpread(Spread):
    """The same with five moves: none, left, right, down, up."""

    discrete = True


class Medium(Spread):
    """Slow and careless players: a third of the way from random play to the best."""

    paces, carelessnesses = (0.1, 0.4), (0.2, 0.6)


class MediumForces(Medium):
    """The same for the task ``spread``, whose actions are forces."""

    def __call__(self, observations: Mapping[str, np.ndarray]) -> dict[str, np.ndarray | int]:
        """Pushes every agent towards its landmark."""
        moves = super().__call__(observations)
        return {name: np.array([m[2] - m[1], m[4] - m[3]]) for name, m in moves.items()}


class DiscreteMedium(Medium, DiscreteSpread):
    """The same with five moves. All have one strength, so slow players rest in many steps."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(seed)
        self.rests = self.random.uniform(0.3, 0.7)
