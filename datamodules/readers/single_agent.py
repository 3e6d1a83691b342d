"""Reads single-agent datasets: files in D4RL's layout and Minari datasets. Errors name the file and the key.

A D4RL file with ``next_observations`` is read completely. Without them, the next state of an episode's last step is
unknown, because the following row belongs to the next episode (see ``datamodules.readers.last_steps``). The numbers of
steps that were left out or completed are in ``Recording.counts``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
from rich.progress import Progress

from datamodules.readers.d4rl_file import D4RL_KEYS, D4RLFile
from datamodules.readers.hdf5_episodes import Episodes
from datamodules.readers.hdf5_file import open_hdf5
from datamodules.readers.last_steps import cut
from momalit.core.errors import UserError

logger = logging.getLogger(__name__)

TOLERANCE = 1e-5  # allowed difference of x between observations and next_observations, relative to 1 + |x|


@dataclass(frozen=True)
class Recording:
    """E single-agent trajectories with N transitions in total, stored as in ``Trajectories``.

    Args:
        state: ``(N + E, S)``.
        action: ``(N, U)``, the action for all U actuators.
        reward: ``(N,)``.
        terminated: ``(N,)`` bool.
        truncated: ``(N,)`` bool.
        lengths: ``(E,)``, number of transitions of each trajectory.
        counts: number of steps that needed special treatment, by reason.
    """

    state: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    lengths: np.ndarray
    counts: dict[str, int] = field(default_factory=dict)


# Maps a location (for messages) and the number of columns there to the columns that are the state.
ColumnSelector = Callable[[str, int], slice]


def read_recording(
    path: Path, select_columns: ColumnSelector, n_actuators: int, horizon: int, progress: Progress
) -> Recording:
    """Reads a file in D4RL's or Minari's layout.

    Args:
        path: the HDF5 file.
        select_columns: selects the columns of the observations that are the state.
        n_actuators: expected number of action components.
        horizon: number of steps after which episodes are truncated, used only if a file has neither ``timeouts`` nor
            ``next_observations``.
        progress: displays the progress of reading.

    Raises:
        UserError: the file is invalid. The message names the file, the key, what was found and what was expected.
    """
    with open_hdf5(path) as file:
        if isinstance(file.get("observations"), h5py.Dataset):
            return _read_d4rl(D4RLFile(path, file, progress), select_columns, n_actuators, horizon)
        if any(name.startswith("episode_") for name in file):
            progress.add_task(f"reading {path.name}", total=None)
            return _read_minari(Episodes(path, file), select_columns, n_actuators)
        found = ", ".join(list(file)[:8]) or "nothing"
    raise UserError(
        f"{path}: found {found}, expected D4RL's layout ({', '.join(D4RL_KEYS)}) or Minari's (episode_0, ...)"
    )


def _read_d4rl(file: D4RLFile, select_columns: ColumnSelector, n_actuators: int, horizon: int) -> Recording:
    """Reads a file in D4RL's layout and splits it into episodes at terminals, at timeouts and at the end of the file.

    If the file has next observations, an episode also ends where the next observation differs from the next row, which
    is an unflagged reset. Without next observations and timeouts, episodes are truncated every ``horizon`` steps, as in
    D4RL's own loader.
    """
    width = file.width("observations")
    columns = select_columns(f"{file.path}: observations", width)
    state = file.rows("observations", columns, width)
    next_state = file.rows("next_observations", columns, width) if "next_observations" in file else None
    action, reward = file.rows("actions", slice(None), n_actuators), file.column("rewards")
    terminal = file.flag("terminals")
    timeout = file.flag("timeouts") if "timeouts" in file else np.zeros(file.n_steps, bool)
    counts = {"ended both ways": int((terminal & timeout).sum())}
    ends = terminal | timeout
    unflagged = np.zeros(file.n_steps, bool)
    if next_state is not None:
        unflagged[:-1] = (np.abs(next_state[:-1] - state[1:]) > TOLERANCE * (1 + np.abs(state[1:]))).any(1)
    elif "timeouts" not in file:
        step = np.arange(file.n_steps)
        first = np.maximum.accumulate(np.where(np.append(True, ends[:-1]), step, 0))
        unflagged = (step - first + 1) % horizon == 0
        logger.warning(
            "%s: timeouts and next_observations are missing; episodes are assumed to be truncated after %d steps",
            file.path, horizon,
        )  # fmt: skip
    unflagged[-1] = True
    unflagged &= ~ends
    counts["ended without a flag"] = int(unflagged.sum())
    last = ends | unflagged
    last_steps = np.flatnonzero(last)
    lengths = np.diff(last_steps, prepend=-1)
    if next_state is not None:
        episode = np.cumsum(last) - last
        states = np.empty((file.n_steps + len(last_steps), state.shape[1]), np.float32)
        states[np.arange(file.n_steps) + episode] = state
        states[last_steps + np.arange(len(last_steps)) + 1] = next_state[last_steps]
        return Recording(states, action, reward, terminal, last & ~terminal, lengths, counts)
    rows = cut(np.append(True, last[:-1]), terminal, np.ones(file.n_steps, bool))
    if not len(rows.lengths):
        raise UserError(
            f"{file.path}: found {len(last_steps)} episodes of one step and no next_observations, expected longer ones"
        )
    counts |= {"left out": rows.left_out, "extrapolated": int(rows.added.sum())}
    ended = np.zeros(len(rows.transitions), bool)
    ended[rows.last()] = True
    terminal = terminal[rows.transitions]
    return Recording(
        rows.states(state), action[rows.transitions], reward[rows.transitions], terminal, ended & ~terminal,
        rows.lengths, counts,
    )  # fmt: skip


def _read_minari(episodes: Episodes, select_columns: ColumnSelector, n_actuators: int) -> Recording:
    """Reads a Minari dataset with Box observations and actions. It contains every next observation."""
    path, first = episodes.path, episodes.names[0]
    for key in ("observations", "actions"):
        if episodes.is_group(key):
            raise UserError(
                f"{path}: {first}/{key} holds {', '.join(episodes.keys(key))}, expected one array; a dataset keyed by"
                " agent needs no import; pass it as --data.dataset"
            )
    columns = select_columns(f"{path}: {first}/observations", width := episodes.width("observations"))
    state = episodes.read("observations", extra=1, width=width, columns=columns)
    action = episodes.read("actions", width=n_actuators)
    reward = episodes.read("rewards", width=1)[:, 0]
    terminal, timeout = (episodes.read(key, width=1, dtype=None)[:, 0] != 0 for key in ("terminations", "truncations"))
    lengths = np.array(episodes.lengths)
    last = np.zeros(episodes.n_steps, bool)
    last[np.cumsum(lengths) - 1] = True
    for key, flag in (("terminations", terminal), ("truncations", timeout)):
        episodes.raise_if_any(key, flag & ~last, flag, "True only at the last step of an episode")
    counts = {
        "ended both ways": int((terminal & timeout).sum()),
        "ended without a flag": int((last & ~terminal & ~timeout).sum()),
    }
    return Recording(state, action, reward, terminal, last & ~terminal, lengths, counts)
