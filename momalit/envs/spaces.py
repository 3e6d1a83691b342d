"""Flattens the observation and action spaces of PettingZoo environments into columns of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from momalit.core.errors import UserError

OBSERVATION, MASK = "observation", "action_mask"  # PettingZoo's keys for observations with action masks


def is_masked(space: spaces.Space[Any]) -> bool:
    """Returns whether an observation space is PettingZoo's ``{"observation", "action_mask"}``."""
    return isinstance(space, spaces.Dict) and set(space.spaces) == {OBSERVATION, MASK}


def observation_widths(agent: str, space: spaces.Space[Any]) -> tuple[int, int]:
    """Returns an agent's number of observation columns and of mask columns.

    Raises:
        UserError: the space cannot be flattened.
    """
    inner, mask = (space[OBSERVATION], space[MASK]) if is_masked(space) else (space, None)  # type: ignore[index]
    try:
        return spaces.flatdim(inner), 0 if mask is None else spaces.flatdim(mask)
    except (AttributeError, NotImplementedError, ValueError):
        raise UserError(
            f"agent {agent}: its observation space {inner} cannot be flattened, expected Box, Discrete or Dict of these"
        ) from None


def flatten_observation(space: spaces.Space[Any], value: Any) -> np.ndarray:
    """Returns one observation as float32 columns, followed by those of the action mask if there is one."""
    if is_masked(space):
        observation = flatten_observation(space[OBSERVATION], value[OBSERVATION])  # type: ignore[index]
        return np.concatenate([observation, _to_columns(value[MASK])])
    return _to_columns(value) if isinstance(space, spaces.Box) else _to_columns(spaces.flatten(space, value))


def action_layout(agent: str, space: spaces.Space[Any]) -> tuple[bool, int, tuple[float, ...], tuple[float, ...]]:
    """Returns whether an agent's actions are discrete, their number of components, and their bounds.

    Raises:
        UserError: the space is neither Discrete nor a Box with finite bounds.
    """
    if isinstance(space, spaces.Discrete):
        return True, int(space.n), (), ()
    if not isinstance(space, spaces.Box):
        raise UserError(f"agent {agent}: its action space is {space}, expected Discrete or Box")
    low, high = _to_columns(space.low), _to_columns(space.high)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise UserError(f"agent {agent}: its action space {space} is unbounded, expected a Box with finite bounds")
    return False, low.size, tuple(low.tolist()), tuple(high.tolist())


def all_discrete(source: str, discrete: dict[str, bool]) -> bool:
    """Returns whether the agents' action spaces are discrete.

    Args:
        source: name of the environment or file, for the error message.
        discrete: whether an agent's actions are discrete, per agent.

    Raises:
        UserError: some action spaces are discrete and some are continuous.
    """
    if len(set(discrete.values())) > 1:
        found = ", ".join(f"{agent} {'discrete' if value else 'continuous'}" for agent, value in discrete.items())
        raise UserError(f"{source}: found mixed action spaces ({found}), expected all discrete or all continuous")
    return next(iter(discrete.values()))


def _to_columns(value: Any) -> np.ndarray:
    return np.asarray(value, dtype=np.float32).ravel()
