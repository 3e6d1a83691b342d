"""Reads what a single agent recorded: files in D4RL's layout and Minari datasets, with every fault named.

A file of D4RL's that holds ``next_observations`` loses nothing. Where it does not, nobody knows what the last step
of an episode led to: the row that follows belongs to the next episode. Such a step is left out, for a world model would
learn whatever were put in its place, and its episode counts as truncated at the step before, which is true: the task
had not ended there. For steps that terminated this costs more than a row: a world model that learns from the rest
never ends an episode. Whoever imports is told how many there were.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
from rich.progress import Progress

from datamodules.readers.d4rl_file import FLAT_KEYS, FlatFile
from datamodules.readers.hdf5_episodes import Episodes
from momalit.core.errors import UserError

logger = logging.getLogger(__name__)

ROUNDING = 1e-5  # by how much an observation may differ from its copy in next_observations, relative to 1 + its size


@dataclass(frozen=True)
class Recording:
    """E trajectories with N transitions, laid out as in ``Trajectories``.

    Args:
        state: ``(N + E, S)``.
        action: ``(N, U)``, the joint action over all U actuators.
        reward: ``(N,)``.
        terminated: ``(N,)`` bool.
        truncated: ``(N,)`` bool.
        lengths: ``(E,)``, number of transitions of every trajectory.
        counts: what had to be decided about the steps, and how often.
    """

    state: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    lengths: np.ndarray
    counts: dict[str, int] = field(default_factory=dict)


Choice = Callable[[str, int], slice]  # the state's columns, of a place for messages and the number of columns there


def read_recording(path: Path, choose: Choice, n_actuators: int, horizon: int, progress: Progress) -> Recording:
    """Reads a file in either layout.

    Args:
        path: the HDF5 file.
        choose: says which columns of the observations are the state.
        n_actuators: number of action components expected.
        horizon: steps after which an episode was cut, used only where a file holds neither ``timeouts`` nor
            ``next_observations``.
        progress: shows how far it is.

    Raises:
        UserError: the first fault found: file, key, what is there and what was expected.
    """
    try:
        with h5py.File(path, "r") as file:
            if isinstance(file.get("observations"), h5py.Dataset):
                return _split(FlatFile(path, file, progress), choose, n_actuators, horizon)
            if any(name.startswith("episode_") for name in file):
                progress.add_task(f"reading {path.name}", total=None)
                return _read_minari(Episodes(path, file), choose, n_actuators)
            found = ", ".join(list(file)[:8]) or "nothing"
    except (OSError, RuntimeError) as error:
        line = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read as HDF5 ({line}), expected an intact file") from error
    raise UserError(
        f"{path}: found {found}, expected D4RL's layout ({', '.join(FLAT_KEYS)}) or Minari's (episode_0, ...)"
    )


def _split(file: FlatFile, choose: Choice, n_actuators: int, horizon: int) -> Recording:
    """The episodes of a file in D4RL's layout, which ends one at terminals, at timeouts, and at the file's end.

    So does a step whose successor is not the observation of the next row, if the file holds successors: a reset was
    not flagged. A file without successors and timeouts is cut every ``horizon`` steps, as D4RL's own loader does.
    """
    width = file.width("observations")
    columns = choose(f"{file.path}: observations", width)
    state = file.rows("observations", columns, width)
    successor = file.rows("next_observations", columns, width) if "next_observations" in file else None
    action, reward = file.rows("actions", slice(None), n_actuators), file.column("rewards")
    terminal = file.flag("terminals")
    timeout = file.flag("timeouts") if "timeouts" in file else np.zeros(file.n_steps, bool)
    counts = {"ended both ways": int((terminal & timeout).sum())}
    ends = terminal | timeout
    unflagged = np.zeros(file.n_steps, bool)
    if successor is not None:
        unflagged[:-1] = (np.abs(successor[:-1] - state[1:]) > ROUNDING * (1 + np.abs(state[1:]))).any(1)
    elif "timeouts" not in file:
        step = np.arange(file.n_steps)
        first = np.maximum.accumulate(np.where(np.append(True, ends[:-1]), step, 0))
        unflagged = (step - first + 1) % horizon == 0
        logger.warning(
            "%s: timeouts and next_observations are missing; episodes are taken to be cut after %d steps",
            file.path, horizon,
        )  # fmt: skip
    unflagged[-1] = True
    unflagged &= ~ends
    counts["ended without a flag"] = int(unflagged.sum())
    last = ends | unflagged
    final = np.flatnonzero(last)
    lengths = np.diff(final, prepend=-1)
    if successor is not None:
        episode = np.cumsum(last) - last
        states = np.empty((file.n_steps + len(final), state.shape[1]), np.float32)
        states[np.arange(file.n_steps) + episode] = state
        states[final + np.arange(len(final)) + 1] = successor[final]
        return Recording(states, action, reward, terminal, last & ~terminal, lengths, counts)
    counts |= {"left out": len(final), "left out, terminated": int(terminal.sum())}
    known = ~last
    if not known.any():
        raise UserError(
            f"{file.path}: found {len(final)} episodes of one step and no next_observations, expected longer ones"
        )
    states = state[np.repeat(lengths > 1, lengths)]
    truncated = np.append(last[1:], False)[known]
    return Recording(
        states, action[known], reward[known], np.zeros_like(truncated), truncated, lengths[lengths > 1] - 1, counts
    )


def _read_minari(episodes: Episodes, choose: Choice, n_actuators: int) -> Recording:
    """A Minari dataset with Box observations and actions; it holds every successor."""
    path, first = episodes.path, episodes.names[0]
    for key in ("observations", "actions"):
        if episodes.is_group(key):
            raise UserError(
                f"{path}: {first}/{key} holds {', '.join(episodes.keys(key))}, expected one array; a dataset keyed by"
                " agent needs no import, use it as --data.dataset"
            )
    columns = choose(f"{path}: {first}/observations", width := episodes.width("observations"))
    state = episodes.read("observations", extra=1, width=width, columns=columns)
    action = episodes.read("actions", width=n_actuators)
    reward = episodes.read("rewards", width=1)[:, 0]
    terminal, timeout = (episodes.read(key, width=1, dtype=None)[:, 0] != 0 for key in ("terminations", "truncations"))
    lengths = np.array(episodes.lengths)
    last = np.zeros(episodes.n_steps, bool)
    last[np.cumsum(lengths) - 1] = True
    for key, flag in (("terminations", terminal), ("truncations", timeout)):
        episodes.refuse(key, flag & ~last, flag, "ends at an episode's last step only")
    counts = {
        "ended both ways": int((terminal & timeout).sum()),
        "ended without a flag": int((last & ~terminal & ~timeout).sum()),
    }
    return Recording(state, action, reward, terminal, last & ~terminal, lengths, counts)
