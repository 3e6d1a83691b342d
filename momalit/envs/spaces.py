"""Observations and spaces of any PettingZoo environment as plain columns of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from momalit.core.errors import UserError

OBSERVATION, MASK = "observation", "action_mask"  # PettingZoo's keys for observations that come with legal actions


def is_masked(space: spaces.Space[Any]) -> bool:
    """Whether an observation space is PettingZoo's ``{"observation", "action_mask"}``."""
    return isinstance(space, spaces.Dict) and set(space.spaces) == {OBSERVATION, MASK}


def widths(agent: str, space: spaces.Space[Any]) -> tuple[int, int]:
    """Number of observation columns and of mask columns of an agent.

    Raises:
        UserError: the space cannot be flattened into numbers.
    """
    inner, mask = (space[OBSERVATION], space[MASK]) if is_masked(space) else (space, None)  # type: ignore[index]
    try:
        return spaces.flatdim(inner), 0 if mask is None else spaces.flatdim(mask)
    except (AttributeError, NotImplementedError, ValueError):
        raise UserError(
            f"agent {agent}: its observation space {inner} cannot be flattened, expected Box, Discrete or Dict of these"
        ) from None


def flat(space: spaces.Space[Any], value: Any) -> np.ndarray:
    """One observation as float32 columns, the mask's after the observation's."""
    if is_masked(space):
        return np.concatenate([flat(space[OBSERVATION], value[OBSERVATION]), _numbers(value[MASK])])  # type: ignore[index]
    return _numbers(value) if isinstance(space, spaces.Box) else _numbers(spaces.flatten(space, value))


def action_part(agent: str, space: spaces.Space[Any]) -> tuple[bool, int, tuple[float, ...], tuple[float, ...]]:
    """Whether an agent's actions are choices, how many components they have, and their bounds.

    Raises:
        UserError: the space is neither Discrete nor a Box with finite bounds.
    """
    if isinstance(space, spaces.Discrete):
        return True, int(space.n), (), ()
    if not isinstance(space, spaces.Box):
        raise UserError(f"agent {agent}: its action space is {space}, expected Discrete or Box")
    low, high = _numbers(space.low), _numbers(space.high)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise UserError(f"agent {agent}: its action space {space} is unbounded, expected a Box with finite bounds")
    return False, low.size, tuple(low.tolist()), tuple(high.tolist())


def same_kind(task: str, kinds: dict[str, bool]) -> bool:
    """Whether all agents' actions are choices.

    Args:
        task: for the message.
        kinds: per agent, whether its actions are choices.

    Raises:
        UserError: some are choices and some are not.
    """
    if len(set(kinds.values())) > 1:
        named = ", ".join(f"{agent} {'discrete' if kind else 'continuous'}" for agent, kind in kinds.items())
        raise UserError(f"{task}: found mixed action spaces ({named}), expected all discrete or all continuous")
    return next(iter(kinds.values()))


def _numbers(value: Any) -> np.ndarray:
    return np.asarray(value, dtype=np.float32).ravel()
