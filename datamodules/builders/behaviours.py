"""The behaviours that generate the built-in datasets.

A behaviour is constructed for a number of episodes and samples the properties that differ between episodes. It then
returns joint actions for states of any of these episodes. All randomness comes from the given generators.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import numpy as np

from momalit.core.checks import require_known_keys, require_numbers
from momalit.core.errors import UserError
from momalit.core.team import TeamSpec

KP, KD = 0.6, 0.08  # gains: torque per rad and per rad/s
LINKS = (0.1, 0.11)  # m, shoulder to elbow and elbow to fingertip
NOISES = (0.0, 0.1, 0.2, 0.4, 0.8)  # standard deviations of torque noise; each episode uses one


class Behaviour(Protocol):
    """Computes joint actions from states and episode numbers."""

    def settings(self) -> dict[str, Any]:
        """Settings that are recorded in the dataset's provenance."""

    def act(self, episode: np.ndarray, state: np.ndarray, rng: np.random.Generator, /) -> np.ndarray:
        """Returns joint actions ``(B, A, U)`` for states ``(B, S)`` of the episodes numbered ``(B,)``."""


class RandomActions:
    """Samples uniformly from the legal discrete actions, or between the bounds of continuous actions."""

    def __init__(self, spec: TeamSpec, _n_episodes: int, _rng: np.random.Generator) -> None:
        self._choosing = spec.choosing().numpy()[:, None]
        self._low, self._high = spec.action_low().numpy(), spec.action_high().numpy()
        legal = spec.legal_index()
        self._legal = None if legal is None else legal.numpy()
        self._valid = spec.action_mask().numpy()

    def settings(self) -> dict[str, Any]:
        return {"behaviour": "random"}

    def act(self, _episode: np.ndarray, state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        sample = rng.random((len(state), *self._low.shape))
        real = (self._low + sample * (self._high - self._low)).astype(np.float32)
        if not self._choosing.any():
            return real
        allowed = np.broadcast_to(self._valid, sample.shape)
        if self._legal is not None:
            allowed = allowed * np.where(self._legal >= 0, state[:, self._legal] > 0.5, True)
        return np.where(self._choosing, _one_hot((sample * allowed).argmax(-1), sample.shape[-1]), real)


class Conventions:
    """Coordination game: each episode follows one convention, and agents slip now and then.

    Args:
        spec: the team's specification.
        n_episodes: number of episodes.
        rng: assigns conventions to episodes at random. The number of episodes per convention is not random.
        first_share: fraction of the episodes that follow convention 0; the other conventions have equal fractions of
            the rest. None for equal fractions of all conventions.
        slip: probability that an agent acts uniformly at random instead.

    Raises:
        UserError: a setting is no probability.
    """

    def __init__(
        self,
        spec: TeamSpec,
        n_episodes: int,
        rng: np.random.Generator,
        first_share: float | None = None,
        slip: float = 0.05,
    ) -> None:
        require_numbers("data.behaviour.", {"first_share": first_share}, least=0, most=1, optional=True)
        require_numbers("data.behaviour.", {"slip": slip}, least=0, most=1)
        self._n_agents, self._n_actions = spec.n_agents, spec.action_size if spec.discrete else 2
        self._first_share, self._slip = first_share, slip
        shares = np.full(self._n_actions, 1 / self._n_actions)
        if first_share is not None:
            shares[:] = (1 - first_share) / (self._n_actions - 1)
            shares[0] = first_share
        edges = np.rint(np.cumsum(shares) * n_episodes).astype(int)
        self._convention = rng.permutation(np.repeat(np.arange(self._n_actions), np.diff(edges, prepend=0)))

    def settings(self) -> dict[str, Any]:
        return {"behaviour": "conventions", "first_share": self._first_share, "slip": self._slip}

    def act(self, episode: np.ndarray, state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        shape = (len(state), self._n_agents)
        slip = rng.random(shape) < self._slip
        other = rng.integers(self._n_actions, size=shape)
        convention = self._convention[episode % len(self._convention)]
        return _one_hot(np.where(slip, other, convention[:, None]), self._n_actions)


class Conflicting:
    """Coordination game: a log that misleads agents who learn alone, and those who imitate.

    Every step draws its joint action anew. In most of them the first agents choose action 0 and the others the highest
    one, which scores nothing; in the rest all choose alike, one or the other. The first agent scores whenever it plays
    the highest action, the last one whenever it plays 0, so that their best replies to what the others did never meet.
    And imitators repeat what is frequent, which does not meet either.

    Args:
        spec: the team's specification.
        mixed: share of the steps in which the agents do not agree; None for 60 % of two agents and 70 % of more.

    Raises:
        UserError: a setting is no share.
    """

    def __init__(self, spec: TeamSpec, _n_episodes: int, _rng: np.random.Generator, mixed: float | None = None) -> None:
        require_numbers("data.behaviour.", {"mixed": mixed}, least=0, most=1, optional=True)
        self._n_agents, self._n_actions = spec.n_agents, spec.action_size if spec.discrete else 2
        self._mixed = (0.6 if spec.n_agents == 2 else 0.7) if mixed is None else mixed

    def settings(self) -> dict[str, Any]:
        return {"behaviour": "conflicting", "mixed": self._mixed}

    def act(self, _episode: np.ndarray, state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        n = len(state)
        first = rng.integers(1, self._n_agents, size=(n, 1))  # how many agents choose action 0
        split = np.arange(self._n_agents) >= first
        high = np.where(rng.random((n, 1)) < self._mixed, split, rng.random((n, 1)) < 0.5)
        return _one_hot(high * (self._n_actions - 1), self._n_actions)


class OnRidges:
    """Ridge game: actions around -1/2 or 1/2, as a behaviour of the coordination game chooses for each agent.

    Args:
        choices: the behaviour; its action 0 means -1/2 and its action 1 means 1/2.
        noise: standard deviation of the actions around these.

    Raises:
        UserError: the noise is negative.
    """

    def __init__(self, choices: Behaviour, noise: float) -> None:
        require_numbers("data.behaviour.", {"noise": noise}, least=0)
        self._choices, self._noise = choices, noise

    def settings(self) -> dict[str, Any]:
        return {**self._choices.settings(), "noise": self._noise}

    def act(self, episode: np.ndarray, state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        centre = self._choices.act(episode, state, rng).argmax(-1) - 0.5
        action = centre + self._noise * rng.standard_normal(centre.shape)
        return action.clip(-1, 1).astype(np.float32)[..., None]


def ridge_conventions(
    spec: TeamSpec,
    n_episodes: int,
    rng: np.random.Generator,
    first_share: float | None = None,
    slip: float = 0.05,
    noise: float = 0.1,
) -> OnRidges:
    """Each episode stays on one ridge, and agents slip now and then to the other (see ``Conventions``)."""
    return OnRidges(Conventions(spec, n_episodes, rng, first_share, slip), noise)


def ridge_conflicting(
    spec: TeamSpec, n_episodes: int, rng: np.random.Generator, mixed: float | None = None, noise: float = 0.1
) -> OnRidges:
    """In most steps the first agents act around -1/2 and the others around 1/2 (see ``Conflicting``)."""
    return OnRidges(Conflicting(spec, n_episodes, rng, mixed), noise)


class InverseKinematics:
    """Reacher: a PD controller that tracks the joint angles at which the fingertip is on the target.

    Even episodes bend the elbow clockwise, odd ones counter-clockwise. The standard deviation of the torque noise is
    constant within an episode.

    Args:
        n_episodes: number of episodes.
        rng: samples the noise level of each episode.
        noises: standard deviations to sample from.

    Raises:
        UserError: there is no noise, or one is negative.
    """

    def __init__(
        self, _spec: TeamSpec, n_episodes: int, rng: np.random.Generator, noises: tuple[float, ...] = NOISES
    ) -> None:
        if not isinstance(noises, list | tuple) or not noises:
            raise UserError(f"data.behaviour.noises: found {noises!r}, expected a list of standard deviations")
        require_numbers("data.behaviour.", {f"noises[{i}]": noise for i, noise in enumerate(noises)}, least=0)
        self._noises = noises
        self._elbow_sign = np.where(np.arange(n_episodes) % 2 == 0, -1.0, 1.0)
        self._noise_std = np.asarray(noises)[rng.integers(len(noises), size=n_episodes)]

    def settings(self) -> dict[str, Any]:
        return {"behaviour": "inverse-kinematics", "kp": KP, "kd": KD, "noises": list(self._noises)}

    def act(self, episode: np.ndarray, state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        state = state.astype(np.float64)
        index = episode % len(self._elbow_sign)
        first, second = LINKS
        angle = np.arctan2(state[:, 2:4], state[:, 0:2])
        x, y = state[:, 4], state[:, 5]
        cosine = (x**2 + y**2 - first**2 - second**2) / (2 * first * second)
        elbow = self._elbow_sign[index] * np.arccos(cosine.clip(-1, 1))
        shoulder = np.arctan2(y, x) - np.arctan2(second * np.sin(elbow), first + second * np.cos(elbow))
        error = np.stack([shoulder, elbow], 1) - angle
        # The shoulder rotates freely, so its error wraps to the shorter direction. The elbow has joint limits.
        error[:, 0] = (error[:, 0] + np.pi) % (2 * np.pi) - np.pi
        torque = KP * error - KD * state[:, 6:8]
        torque = torque + self._noise_std[index, None] * rng.standard_normal(torque.shape)
        return torque.clip(-1, 1).astype(np.float32)[:, :, None]


BEHAVIOURS: dict[tuple[str, str], Callable[..., Behaviour]] = {
    ("icg", "conflicting"): Conflicting,
    ("icg", "favourable"): partial(Conventions, first_share=0.8),
    ("icg", "unfavourable"): Conventions,
    ("reacher", "expert-mix"): InverseKinematics,
    ("ridges", "conflicting"): ridge_conflicting,
    ("ridges", "unfavourable"): ridge_conventions,
}


def make_behaviour(
    task: str, kind: str, settings: Mapping[str, Any] | None = None
) -> Callable[[TeamSpec, int, np.random.Generator], Behaviour]:
    """Returns the behaviour class or factory of a built-in dataset (see ``datamodules.names``).

    Args:
        task: name of the task.
        kind: kind of dataset.
        settings: what differs from the behaviour's own settings, as ``data.behaviour``.

    Raises:
        UserError: the behaviour has no such setting.
    """
    make = BEHAVIOURS.get((task, kind), RandomActions)
    if not settings:
        return make
    known = list(inspect.signature(make).parameters)[3:]
    if not known:
        raise UserError(f"data.behaviour: found {dict(settings)!r}, but what {task}/{kind} does has no settings")
    require_known_keys("data.behaviour.", settings, known)
    return partial(make, **settings)


def _one_hot(choice: np.ndarray, size: int) -> np.ndarray:
    return np.eye(size, dtype=np.float32)[choice]
