"""Arrays per agent in a folder of NPY files or in one NPZ file, in the layout of OMAR's MPE and MAMuJoCo datasets.

Agent i has ``obs_i``, ``acs_i``, ``rews_i``, ``next_obs_i`` and ``dones_i``, each with one row per step, and for
MAMuJoCo ``states_i`` and ``next_states_i``. The layout is the one that public loaders of these datasets (Pan et al.,
2022) expect; the files themselves were not at hand.
"""

from __future__ import annotations

import re
import zipfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.readers.action_columns import are_choices
from datamodules.readers.hdf5_file import require_memory
from datamodules.readers.steps import filled_columns, team_reward
from momalit.core.errors import UserError

KEYS = ("obs", "acs", "rews", "next_obs", "dones")


@dataclass(frozen=True)
class AgentArrays:
    """N steps of A agents.

    Args:
        observations: ``(N, O_i)`` per agent, and ``(N, S)`` of ``"state"`` if there is one.
        next_observations: the same after the step.
        actions: ``(N, U_i)`` per agent.
        reward: the team's ``(N,)``.
        done: ``(N,)`` bool, whether any agent's flag is set.
        choosing: the agents whose actions are numbers of choices.
    """

    observations: dict[str, np.ndarray]
    next_observations: dict[str, np.ndarray]
    actions: dict[str, np.ndarray]
    reward: np.ndarray
    done: np.ndarray
    choosing: tuple[str, ...] = ()


def has_agent_arrays(path: Path) -> bool:
    """Whether a path is an NPZ file or a folder with an array ``obs_0``."""
    return path.suffix.lower() == ".npz" or (path / "obs_0.npy").is_file()


def read_agent_arrays(path: Path, reward: str = "mean") -> AgentArrays:
    """Reads all agents' arrays.

    Args:
        path: the folder or archive.
        reward: the team's reward: ``mean`` or ``sum`` of the agents', or the name of one of them.

    Raises:
        UserError: an array is missing, has another number of rows, is not numeric, or has a value that is not finite.
    """
    with closing(_Arrays(path)) as arrays:
        return _agent_arrays(path, arrays, reward)


def _agent_arrays(path: Path, arrays: _Arrays, reward: str) -> AgentArrays:
    numbers = sorted(int(match[1]) for name in arrays.names if (match := re.fullmatch(r"obs_(\d+)", name)))
    if not numbers or numbers != list(range(len(numbers))):
        raise UserError(f"{path}: found {', '.join(arrays.names[:8]) or 'nothing'}, expected obs_0, obs_1, ...")
    agents = {f"agent_{i}": {key: arrays.read(f"{key}_{i}") for key in KEYS} for i in numbers}
    observations = {name: own["obs"] for name, own in agents.items()}
    next_observations = {name: own["next_obs"] for name, own in agents.items()}
    keys = {f"agent_{i}": (f"obs_{i}", f"next_obs_{i}") for i in numbers}
    if "states_0" in arrays.names:
        observations["state"], next_observations["state"] = arrays.read("states_0"), arrays.read("next_states_0")
        keys["state"] = ("states_0", "next_states_0")
    for name, array in observations.items():
        after = next_observations[name]
        if array.shape != after.shape:
            widths = f"{array.shape[1]} observation columns and {after.shape[1]} next ones"
            raise UserError(f"{path}: {name} has {widths}, expected as many")
        filled = filled_columns(path, f"observations of {name}", np.concatenate([array, after]))
        observations[name], next_observations[name] = array[:, filled], after[:, filled]
        for key, values in zip(keys[name], (observations[name], next_observations[name]), strict=True):
            _require_finite(path, key, values)
    for i in numbers:
        for key in ("acs", "rews", "dones"):
            _require_finite(path, f"{key}_{i}", agents[f"agent_{i}"][key])
    return AgentArrays(
        observations,
        next_observations,
        {name: own["acs"] for name, own in agents.items()},
        team_reward(path, np.concatenate([own["rews"] for own in agents.values()], 1), list(agents), reward),
        np.asarray(np.concatenate([own["dones"] != 0 for own in agents.values()], 1).any(1)),
        tuple(f"agent_{i}" for i in numbers if f"acs_{i}" in arrays.choices),
    )


def _require_finite(path: Path, name: str, array: np.ndarray) -> None:
    wrong = np.flatnonzero(~np.isfinite(array).all(1))
    if len(wrong):
        raise UserError(f"{path}: {name} has a value that is not finite in row {wrong[0]} ({len(wrong)} such rows)")


class _Arrays:
    """The arrays of a folder or archive, all with the same number of rows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: int | None = None
        self.choices: set[str] = set()  # the arrays that have been read and are integers in one column
        self._archive: Any = None
        if path.is_dir():
            self.names = sorted(file.stem for file in path.glob("*.npy"))
            return
        try:
            with zipfile.ZipFile(path) as archive:
                require_memory(path, "the archive", sum(record.file_size for record in archive.infolist()))
            self._archive = np.load(path, allow_pickle=False)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise UserError(f"{path}: cannot be read as NPZ ({' '.join(str(error).split())})") from error
        self.names = sorted(self._archive.files)

    def close(self) -> None:
        """Closes the archive."""
        if self._archive is not None:
            self._archive.close()

    def read(self, name: str) -> np.ndarray:
        """Reads an array as float64 ``(N, columns)``."""
        if name not in self.names:
            raise UserError(f"{self.path}: {name} is missing, found {', '.join(self.names[:12])}")
        try:
            found = self._archive[name] if self._archive is not None else self._open(self.path / f"{name}.npy")
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{self.path}: {name} cannot be read ({' '.join(str(error).split())})") from error
        if found.dtype.kind not in "biuf":
            raise UserError(f"{self.path}: {name} has type {found.dtype}, expected numbers")
        if found.ndim == 0 or not found.size:
            raise UserError(f"{self.path}: {name} has shape {found.shape}, expected a row for every step")
        rows = self._rows = len(found) if self._rows is None else self._rows
        if len(found) != rows:
            raise UserError(f"{self.path}: {name} has {len(found)} rows, expected {rows} as obs_0 has")
        table = found.reshape(rows, -1)
        if are_choices(table):
            self.choices.add(name)
        return np.asarray(table.astype(np.float64))

    def _open(self, file: Path) -> np.ndarray:
        if not file.is_file():
            raise OSError("not a regular file")
        array: np.ndarray = np.load(file, mmap_mode="r", allow_pickle=False)  # checks the file's size against the shape
        require_memory(self.path, file.stem, 8 * array.size)
        return array
