"""Flattens the observation and action spaces of PettingZoo environments into columns of numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from momalit.core.errors import UserError

LARGEST_GRID = 1024  # values of an observation with three or more dimensions; more make it an image
MOST_CHOICES = 4096  # combinations of an agent's discrete actions
OBSERVATION, MASK = "observation", "action_mask"  # PettingZoo's keys for observations with action masks


def is_masked(space: spaces.Space[Any]) -> bool:
    """Returns whether an observation space is PettingZoo's ``{"observation", "action_mask"}``."""
    return isinstance(space, spaces.Dict) and set(space.spaces) == {OBSERVATION, MASK}


def observation_widths(agent: str, space: spaces.Space[Any]) -> tuple[int, int]:
    """Returns an agent's number of observation columns and of mask columns.

    Raises:
        UserError: the space cannot be flattened, or has images.
    """
    inner, mask = (space[OBSERVATION], space[MASK]) if is_masked(space) else (space, None)  # type: ignore[index]
    require_no_image(f"agent {agent}: its observation space", inner.shape or ())
    try:
        return spaces.flatdim(inner), 0 if mask is None else spaces.flatdim(mask)
    except (AttributeError, NotImplementedError, ValueError):
        raise UserError(
            f"agent {agent}: its observation space {inner} cannot be flattened, expected Box, Discrete or Dict of these"
        ) from None


def require_no_image(what: str, shape: tuple[int, ...]) -> None:
    """Refuses observations of a shape that only images have.

    Raises:
        UserError: it has three or more dimensions and more than 1,024 values.
    """
    if len(shape) >= 3 and math.prod(shape) > LARGEST_GRID:
        raise UserError(
            f"{what} has shape {shape}, expected a vector: images need an encoder, whose features take their place"
        )


def flatten_observation(space: spaces.Space[Any], value: Any) -> np.ndarray:
    """Returns one observation as float32 columns, followed by those of the action mask if there is one."""
    if is_masked(space):
        observation = flatten_observation(space[OBSERVATION], value[OBSERVATION])  # type: ignore[index]
        return np.concatenate([observation, _to_columns(value[MASK])])
    return _to_columns(value) if isinstance(space, spaces.Box) else _to_columns(spaces.flatten(space, value))


@dataclass(frozen=True)
class Choices:
    """An agent's discrete actions, numbered from 0. Choices made at the same time count as one: each combination.

    Args:
        sizes: number of options of each choice.
        start: the environment's number of the first option of each choice.
        single: whether an action is a number instead of an array.
    """

    sizes: tuple[int, ...]
    start: tuple[int, ...]
    single: bool

    @property
    def count(self) -> int:
        """Number of combinations."""
        return math.prod(self.sizes)

    def number(self, values: np.ndarray) -> np.ndarray:
        """Numbers ``(N,)`` of the environment's actions ``(N, choices)``; -1 for what is none."""
        options = np.asarray(values, np.float64).reshape(len(values), -1) - self.start
        valid = (options == np.round(options)) & (options >= 0) & (options < self.sizes)
        whole = np.where(valid, options, 0).astype(np.int64)
        return np.where(valid.all(1), np.ravel_multi_index(tuple(whole.T), self.sizes), -1)

    def action(self, number: int) -> Any:
        """The environment's action with a number."""
        if self.single:
            return number + self.start[0]
        return np.array(np.unravel_index(number, self.sizes), np.int64) + self.start


def choices_of(agent: str, space: spaces.Space[Any]) -> Choices | None:
    """Returns the choices of a discrete action space; None for another kind.

    Raises:
        UserError: there are too many combinations for a network to have an output for each.
    """
    if isinstance(space, spaces.Discrete):
        return Choices((int(space.n),), (int(space.start),), True)
    if isinstance(space, spaces.MultiDiscrete):
        sizes, start = np.ravel(space.nvec), np.ravel(getattr(space, "start", 0) + np.zeros_like(space.nvec))
        choices = Choices(tuple(map(int, sizes)), tuple(map(int, start)), False)
    elif isinstance(space, spaces.MultiBinary):
        n = int(np.prod(space.n))
        choices = Choices((2,) * n, (0,) * n, False)
    else:
        return None
    if choices.count > MOST_CHOICES:
        raise UserError(
            f"agent {agent}: its action space {space} has {choices.count} combinations, expected at most {MOST_CHOICES}"
        )
    return choices


def action_layout(agent: str, space: spaces.Space[Any]) -> tuple[bool, int, tuple[float, ...], tuple[float, ...]]:
    """Returns whether an agent's actions are discrete, their number of components, and their bounds.

    Raises:
        UserError: the space is neither discrete nor a Box with finite bounds.
    """
    if (choices := choices_of(agent, space)) is not None:
        return True, choices.count, (), ()
    if not isinstance(space, spaces.Box):
        raise UserError(
            f"agent {agent}: its action space is {space}, expected Discrete, MultiDiscrete, MultiBinary or Box"
        )
    low, high = _to_columns(space.low), _to_columns(space.high)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise UserError(f"agent {agent}: its action space {space} is unbounded, expected a Box with finite bounds")
    return False, low.size, tuple(low.tolist()), tuple(high.tolist())


def _to_columns(value: Any) -> np.ndarray:
    return np.asarray(value, dtype=np.float32).ravel()
