"""Steps of a team as they were recorded: one row per step, in the order of time."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from momalit.core.errors import UserError

logger = logging.getLogger(__name__)

REWARDS = ("mean", "sum")


@dataclass(frozen=True)
class Steps:
    """R recorded steps of a team of A agents, episode by episode.

    Args:
        episode: ``(R,)``, ascending.
        observations: ``(R, columns)`` per agent, and per ``"state"`` if the state was recorded.
        actions: ``(R, components)`` per agent; NaN where a row has no action.
        reward: the team's reward ``(R,)``.
        terminated: ``(R,)`` bool.
        truncated: ``(R,)`` bool.
        columns: names of the columns in each of ``observations``, if they have any.
        masks: how many trailing columns of an agent's observations are its mask of legal actions.
        present: whether an agent is there, ``(R, A)`` bool; None if all stay. Others repeat their last observation.
    """

    episode: np.ndarray
    observations: dict[str, np.ndarray]
    actions: dict[str, np.ndarray]
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    columns: Mapping[str, list[str]] = field(default_factory=dict)
    masks: Mapping[str, int] = field(default_factory=dict)
    present: np.ndarray | None = None


def filled_columns(path: Path, what: str, array: np.ndarray) -> np.ndarray:
    """Which columns have a number in any row, ``(columns,)`` bool. The others are padding; one line says how many.

    Raises:
        UserError: no column has one.
    """
    padding = ~np.isfinite(array).any(0)
    if padding.all():
        raise UserError(f"{path}: all columns of the {what} are empty, expected numbers")
    if padding.any():
        logger.info("%s: %d columns of the %s are empty throughout and left out", path, int(padding.sum()), what)
    return ~padding


def cell(value: float) -> str:
    """A number of a table that should be finite, for messages."""
    return "an empty cell" if np.isnan(value) else str(value)


def team_reward(path: Path, rewards: np.ndarray, names: list[str], how: str) -> np.ndarray:
    """The team's reward ``(R,)`` from those of its agents ``(R, A)``.

    Args:
        path: for messages.
        rewards: ``(R, A)``; one column counts for all agents.
        names: the names of those that have a reward.
        how: ``mean``, ``sum``, or the name of the one whose reward it is.

    Raises:
        UserError: there is no such name.
    """
    if how not in (*REWARDS, *names):
        raise UserError(f"--reward: found {how}, expected mean, sum or one of {path.name}'s {', '.join(names)}")
    if how in names:
        return np.asarray(rewards[:, names.index(how) if rewards.shape[1] > 1 else 0])
    return np.asarray(rewards.sum(1) if how == "sum" else rewards.mean(1))
