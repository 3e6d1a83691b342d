"""The behaviours that fill the built-in datasets.

A behaviour is made for a number of episodes, of which it decides once what differs between them, and then answers
states of any of them with joint actions. All randomness comes from the generators that it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from momalit.core.team import TeamSpec

KP, KD = 0.6, 0.08  # torque per rad and per rad/s
LINKS = (0.1, 0.11)  # m, shoulder to elbow and elbow to fingertip
NOISES = (0.0, 0.1, 0.2, 0.4, 0.8)  # standard deviations of torque noise, one per episode
SLIP = 0.05  # probability that an agent of the coordination game acts at random


class Behaviour(Protocol):
    """Actions for states of given episodes."""

    def settings(self) -> dict[str, Any]:
        """What a dataset records about it."""

    def act(self, episode: np.ndarray, state: np.ndarray, rng: np.random.Generator, /) -> np.ndarray:
        """Joint actions ``(B, A, U)`` for states ``(B, S)`` of the episodes numbered ``(B,)``."""


class RandomActions:
    """Uniform over the legal choices, or between the bounds."""

    def __init__(self, spec: TeamSpec, _n_episodes: int, _rng: np.random.Generator) -> None:
        self._discrete = spec.discrete
        self._low, self._high = spec.action_low().numpy(), spec.action_high().numpy()
        legal = spec.legal_index()
        self._legal = None if legal is None else legal.numpy()
        self._choices = spec.action_mask().numpy()

    def settings(self) -> dict[str, Any]:
        return {"behaviour": "random"}

    def act(self, _episode: np.ndarray, state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        draw = rng.random((len(state), *self._low.shape))
        if not self._discrete:
            return (self._low + draw * (self._high - self._low)).astype(np.float32)
        allowed = np.broadcast_to(self._choices, draw.shape)
        if self._legal is not None:
            allowed = allowed * np.where(self._legal >= 0, state[:, self._legal] > 0.5, True)
        return _one_hot((draw * allowed).argmax(-1), draw.shape[-1])


class Conventions:
    """Coordination game: every episode follows one convention, from which each agent slips now and then.

    Args:
        spec: the team.
        n_episodes: number of episodes.
        rng: deals the conventions to the episodes; their numbers are exact.
        first_share: share of the episodes that follow convention 0, the others having equal parts of the rest; None
            for equal parts all round.
    """

    def __init__(
        self, spec: TeamSpec, n_episodes: int, rng: np.random.Generator, first_share: float | None = None
    ) -> None:
        self._n_agents, self._n_actions = spec.n_agents, spec.action_size
        self._first_share = first_share
        shares = np.full(self._n_actions, 1 / self._n_actions)
        if first_share is not None:
            shares[:] = (1 - first_share) / (self._n_actions - 1)
            shares[0] = first_share
        edges = np.rint(np.cumsum(shares) * n_episodes).astype(int)
        self.convention = rng.permutation(np.repeat(np.arange(self._n_actions), np.diff(edges, prepend=0)))

    def settings(self) -> dict[str, Any]:
        return {"behaviour": "conventions", "first_share": self._first_share, "slip": SLIP}

    def act(self, episode: np.ndarray, state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        shape = (len(state), self._n_agents)
        slip = rng.random(shape) < SLIP
        other = rng.integers(self._n_actions, size=shape)
        convention = self.convention[episode % len(self.convention)]
        return _one_hot(np.where(slip, other, convention[:, None]), self._n_actions)


class InverseKinematics:
    """Reacher: a PD controller on the joint angles that put the fingertip on the target.

    Even episodes bend the elbow clockwise, odd ones counter-clockwise. Each episode has torque noise of one size.

    Args:
        n_episodes: number of episodes.
        rng: draws the noise of every episode.
        noises: the sizes it draws from.
    """

    def __init__(
        self, _spec: TeamSpec, n_episodes: int, rng: np.random.Generator, noises: tuple[float, ...] = NOISES
    ) -> None:
        self._noises = noises
        self.bend = np.where(np.arange(n_episodes) % 2 == 0, -1.0, 1.0)
        self.noise = np.asarray(noises)[rng.integers(len(noises), size=n_episodes)]

    def settings(self) -> dict[str, Any]:
        return {"behaviour": "inverse-kinematics", "kp": KP, "kd": KD, "noises": list(self._noises)}

    def act(self, episode: np.ndarray, state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        state = state.astype(np.float64)
        index = episode % len(self.bend)
        first, second = LINKS
        angle = np.arctan2(state[:, 2:4], state[:, 0:2])
        x, y = state[:, 4], state[:, 5]
        cosine = (x**2 + y**2 - first**2 - second**2) / (2 * first * second)
        elbow = self.bend[index] * np.arccos(cosine.clip(-1, 1))
        shoulder = np.arctan2(y, x) - np.arctan2(second * np.sin(elbow), first + second * np.cos(elbow))
        error = np.stack([shoulder, elbow], 1) - angle
        # The shoulder turns all the way round and may go the short way; the elbow has stops and may not.
        error[:, 0] = (error[:, 0] + np.pi) % (2 * np.pi) - np.pi
        torque = KP * error - KD * state[:, 6:8]
        torque = torque + self.noise[index, None] * rng.standard_normal(torque.shape)
        return torque.clip(-1, 1).astype(np.float32)[:, :, None]


def make_behaviour(task: str, kind: str) -> Callable[[TeamSpec, int, np.random.Generator], Behaviour]:
    """The behaviour behind a dataset's name (see ``datamodules.names``)."""
    if (task, kind) == ("reacher", "expert-mix"):
        return InverseKinematics
    if (task, kind) == ("icg", "unfavourable"):
        return Conventions
    if (task, kind) == ("icg", "favourable"):
        return lambda spec, n_episodes, rng: Conventions(spec, n_episodes, rng, first_share=0.8)
    return RandomActions


def _one_hot(choice: np.ndarray, size: int) -> np.ndarray:
    return np.eye(size, dtype=np.float32)[choice]
