"""An agent's recorded actions, and what its action space must be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from momalit.core.errors import UserError
from momalit.core.team import TeamSpec

ActionPart = tuple[np.ndarray, int, tuple[float, ...], tuple[float, ...]]


def are_choices(values: np.ndarray) -> bool:
    """Whether recorded actions ``(N, columns)`` are numbers of choices: integers in one column."""
    return values.dtype.kind in "iu" and values.shape[1] == 1


def action_part(
    path: Path,
    name: str,
    values: np.ndarray,
    discrete: bool = False,
    choices: int | None = None,
    bounds: tuple[float, float] | None = None,
) -> ActionPart:
    """Infers an agent's action space from its recorded actions.

    Args:
        path: the file, for messages.
        name: the agent's name.
        values: recorded actions ``(N, columns)``.
        discrete: whether they are numbers of choices, in one column.
        choices: number of choices; None for the largest action plus 1.
        bounds: bounds of continuous actions; None for the smallest and largest action of each column.

    Returns:
        actions ``(N, U)``, U, lower and upper bounds. Discrete actions are one-hot, without bounds.

    Raises:
        UserError: an action is not a choice, or outside the bounds.
    """
    if discrete:
        return _choices(path, name, values, choices)
    least, largest = values.min(0), values.max(0)
    if bounds is None:
        equal = least == largest
        low, high = least - equal, largest + equal
    else:
        low, high = (np.full(values.shape[1], bound) for bound in bounds)
        if (least < low).any() or (largest > high).any():
            raise UserError(
                f"{path}: {name} has actions from {least.min():g} to {largest.max():g}, expected {low[0]:g} to"
                f" {high[0]:g} (bounds)"
            )
    rounded = (tuple(float(np.float32(value)) for value in array) for array in (low, high))
    return values.astype(np.float32), values.shape[1], *rounded


def joint_action(parts: Sequence[np.ndarray], spec: TeamSpec) -> np.ndarray:
    """Joins the actions ``(N, U_i)`` of all agents to ``(N, A, U)``, padded with zeros."""
    joint = np.zeros((len(parts[0]), spec.n_agents, spec.action_size), np.float32)
    for i, values in enumerate(parts):
        joint[:, i, : values.shape[1]] = values
    return joint


def _choices(path: Path, name: str, values: np.ndarray, choices: int | None) -> ActionPart:
    if values.shape[1] != 1:
        raise UserError(f"{path}: {name} has {values.shape[1]} action columns, expected 1 for discrete actions")
    choice = values[:, 0]
    highest = choices or max(int(choice.max()) + 1, 2)
    wrong = np.flatnonzero((choice != np.round(choice)) | (choice < 0) | (choice >= highest))
    if len(wrong):
        raise UserError(f"{path}: {name} has the action {choice[wrong[0]]:g}, expected integers 0..{highest - 1}")
    return np.eye(highest, dtype=np.float32)[choice.astype(np.int64)], highest, (), ()
