"""The ends of episodes in recordings with one row per step, where nobody recorded what the last step led to.

Such a step is left out, because a world model would learn from any substitute, unless the task ended there. A world
model that never sees an end never predicts one, and teams then practise what would have ended long ago. The observation
after a terminated step is therefore extrapolated: it repeats the change of the step before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Cut:
    """Which of R rows become the N transitions and the N + E states of E episodes.

    Args:
        transitions: rows whose next observation is known or extrapolated, ``(N,)``.
        lengths: number of transitions of each episode that has any, ``(E,)``.
        rows: row of each state, ``(N + E,)``.
        added: whether the state is extrapolated, ``(N + E,)`` bool.
        left_out: number of rows with actions that become no transitions.
    """

    transitions: np.ndarray
    lengths: np.ndarray
    rows: np.ndarray
    added: np.ndarray
    left_out: int

    def states(self, values: np.ndarray, masks: int = 0) -> np.ndarray:
        """Selects the states ``(N + E, columns)`` from the values of all rows ``(R, columns)``.

        The last ``masks`` columns are not extrapolated but repeated.
        """
        states = values[self.rows]
        last = self.rows[self.added]
        columns = values.shape[1] - masks
        states[self.added, :columns] = (2 * values[last] - values[last - 1])[:, :columns]
        return np.asarray(states)

    def last(self) -> np.ndarray:
        """Position of each episode's last transition, ``(E,)``."""
        return np.asarray(np.cumsum(self.lengths) - 1)


def are_time_limits(lengths: np.ndarray) -> bool:
    """Whether flags at the ends of episodes of these lengths ``(E,)`` are time limits, where a file does not say so.

    They are if they stand after equally many steps in all episodes.
    """
    return len(np.unique(lengths)) == 1


def cut(starts: np.ndarray, terminated: np.ndarray, acting: np.ndarray) -> Cut:
    """Decides which rows become transitions.

    Args:
        starts: whether a row is the first of its episode, ``(R,)`` bool.
        terminated: whether the task ended the episode at this row, ``(R,)`` bool; counts at last rows only.
        acting: whether a row has actions, ``(R,)`` bool; a last row without them is the episode's last observation.
    """
    ends = np.append(starts[1:], True)
    extrapolated = ends & acting & terminated & ~starts
    kept = acting & (~ends | extrapolated)
    number = np.cumsum(starts) - 1
    lengths = np.bincount(number[kept], minlength=number[-1] + 1)
    used = lengths[number] > 0
    rows = np.repeat(np.arange(len(number)), used + (used & extrapolated).astype(np.int64))
    added = np.append(False, rows[1:] == rows[:-1])[: len(rows)]
    return Cut(np.flatnonzero(kept), lengths[lengths > 0], rows, added, int((acting & ~kept).sum()))
