"""Recordings with one array for all agents: OMIGA's HDF5 files and OG-MARL's vaults.

OMIGA's Multi-Agent MuJoCo files have ``o``, ``s``, ``a`` (each ``(R, A, columns)``), ``r`` and ``d``, as its own loader
reads them (Wang et al., 2023). A vault of OG-MARL (Formanek et al., 2023) is a directory of Flashbax with
``metadata.json`` and arrays ``(1, R, A, ...)`` named ``observations``, ``actions``, ``rewards``, ``terminals``,
``truncations``, ``infos.state`` and ``infos.legals``. Both layouts are taken from the code that writes and reads them;
the files themselves were not at hand. Neither records what the last step of an episode led to.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from datamodules.readers.action_columns import are_choices
from datamodules.readers.hdf5_file import open_hdf5, require_memory, require_plausible
from datamodules.readers.last_steps import are_time_limits
from datamodules.readers.steps import Steps, filled_columns, team_reward
from momalit.core.errors import UserError
from momalit.core.team import STATE

logger = logging.getLogger(__name__)

OMIGA_KEYS = ("o", "s", "a", "r", "d")
VAULT_KEYS = ("observations", "actions", "rewards", "terminals")


@dataclass(frozen=True)
class TeamArrays:
    """R recorded steps of A agents, in the order of time.

    Args:
        observations: ``(R, A, columns)``.
        actions: ``(R, A, components)``; one component of integers if discrete.
        rewards: ``(R, A)`` or ``(R, 1)``.
        terminated: whether the task ended the episode, ``(R,)`` bool.
        truncated: whether a time limit did, ``(R,)`` bool; None if that is not recorded.
        state: ``(R, S)`` or None.
        legal: masks of legal actions ``(R, A, K)`` or None.
        discrete: whether actions are numbers of choices.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray | None
    state: np.ndarray | None = None
    legal: np.ndarray | None = None
    discrete: bool = False

    @property
    def choices(self) -> int | None:
        """Number of discrete actions, if the masks tell."""
        return None if self.legal is None else self.legal.shape[2]


def is_omiga(path: Path) -> bool:
    """Whether a path is an HDF5 file with OMIGA's keys."""
    if not path.is_file() or not h5py.is_hdf5(path):
        return False
    with open_hdf5(path) as file:
        return all(key in file for key in OMIGA_KEYS)


def is_vault(path: Path) -> bool:
    """Whether a path is a directory of Flashbax, or a directory of such directories."""
    return path.is_dir() and (_is_one_vault(path) or any(map(_is_one_vault, path.iterdir())))


def read_omiga(path: Path) -> TeamArrays:
    """Reads a file of OMIGA.

    Raises:
        UserError: an array is missing, is not numeric or has another shape.
    """
    with open_hdf5(path) as file:
        arrays = {key: _array(path, file, key) for key in OMIGA_KEYS}
    observations, states, actions = (_with_agents(path, key, arrays[key]) for key in ("o", "s", "a"))
    _require_shapes(path, {key: arrays[key] for key in OMIGA_KEYS}, observations.shape[1])
    same = bool((states == states[:, :1]).all())
    return TeamArrays(
        observations,
        actions,
        arrays["r"].reshape(len(observations), -1),
        (arrays["d"].reshape(len(observations), -1) != 0).any(1),
        None,
        states[:, 0] if same else states.reshape(len(states), -1),
        discrete=are_choices(actions[:, 0]),
    )


def read_vault(path: Path) -> TeamArrays:
    """Reads a vault.

    Raises:
        UserError: tensorstore is missing, the directory holds several vaults, or an array is missing or cannot be read.
    """
    if not _is_one_vault(path):
        names = sorted(part.name for part in path.iterdir() if _is_one_vault(part))
        raise UserError(f"{path}: found the vaults {', '.join(names)}, expected one of them, e.g. {path / names[0]}")
    shapes = _structure(path)
    for key in VAULT_KEYS:
        if key not in shapes:
            raise UserError(f"{path}: {key} is missing, found {', '.join(sorted(shapes))}")
    stores = _VaultStores(path)
    observations = _with_agents(path, "observations", stores.read("observations"))
    raw = stores.read("actions")
    actions = _with_agents(path, "actions", raw[..., None] if raw.ndim == 2 else raw)
    legal = stores.read("infos.legals") if "infos.legals" in shapes else None
    rewards, terminals = stores.read("rewards"), stores.read("terminals")
    truncations = stores.read("truncations") if "truncations" in shapes else None
    optional = {"truncations": truncations, "infos.legals": legal}
    found = {"observations": observations, "actions": raw, "rewards": rewards, "terminals": terminals}
    found |= {name: array for name, array in optional.items() if array is not None}
    _require_shapes(path, found, observations.shape[1])
    return TeamArrays(
        observations,
        actions,
        rewards.reshape(len(raw), -1),
        _all_agents(terminals),
        None if truncations is None else _all_agents(truncations),
        stores.read("infos.state").reshape(len(raw), -1) if "infos.state" in shapes else None,
        legal,
        are_choices(actions[:, 0]),
    )


def recorded_steps(path: Path, arrays: TeamArrays, reward: str = "mean") -> Steps:
    """The steps of a recording: named agents, without padding, with ends of episodes.

    Where time limits are not recorded, flags after equally many steps in all episodes count as one.

    Raises:
        UserError: an agent has no observations or actions, or ``reward`` is none of the team's.
    """
    names = [f"agent_{i}" for i in range(arrays.observations.shape[1])]
    observations, actions, masks = {}, {}, {}
    for i, name in enumerate(names):
        own = arrays.observations[:, i]
        own = own[:, filled_columns(path, f"observations of {name}", own)]
        if arrays.legal is not None:
            masks[name] = arrays.legal.shape[2]
            own = np.concatenate([own, arrays.legal[:, i]], 1)
        observations[name] = own
        used = arrays.actions[:, i]
        actions[name] = used[:, filled_columns(path, f"actions of {name}", used)]
    if arrays.state is not None:
        state = arrays.state[:, filled_columns(path, "state", arrays.state)]
        observations = {STATE: state, **observations}
    truncated = np.zeros_like(arrays.terminated) if arrays.truncated is None else arrays.truncated
    ends = arrays.terminated | truncated
    terminated = arrays.terminated
    if arrays.truncated is None or not truncated.any():
        lengths = np.diff(np.flatnonzero(terminated), prepend=-1)
        if are_time_limits(lengths):
            logger.info("%s: the end of every episode is at step %d and counts as a time limit", path, lengths[0])
            terminated = np.zeros_like(terminated)
    episode = np.cumsum(np.append(0, ends[:-1]))
    team = team_reward(path, arrays.rewards, names, reward)
    return Steps(episode, observations, actions, team, terminated, ends & ~terminated, masks=masks)


def _is_one_vault(path: Path) -> bool:
    return (path / "metadata.json").is_file() and "structure_shape" in _metadata(path)


def _metadata(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads((path / "metadata.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _structure(path: Path) -> dict[str, str]:
    """The declared shapes by name, such as ``infos.state``."""

    def flat(content: Any, prefix: str) -> dict[str, str]:
        if not isinstance(content, Mapping):
            return {prefix: str(content)}
        found: dict[str, str] = {}
        for key, value in content.items():
            found |= flat(value, f"{prefix}.{key}" if prefix else str(key))
        return found

    return flat(_metadata(path)["structure_shape"], "")


class _VaultStores:
    """The arrays of a vault: TensorStore's Zarr in an OCDBT database, whose length is a number of its own."""

    def __init__(self, path: Path) -> None:
        try:
            import tensorstore
        except ImportError:
            raise UserError(
                f"{path}: is a vault, expected the package tensorstore to read it: pip install momalit[vaults]"
            ) from None
        self.path, self._tensorstore = path, tensorstore
        self.rows = int(self._read("vault_index", lambda store: store[:])[0])
        if self.rows < 1:
            raise UserError(f"{path}: found {self.rows} steps, expected at least one")

    def _open(self, name: str) -> Any:
        spec = {"driver": "ocdbt", "base": f"file://{self.path.resolve()}", "path": name}
        try:
            return self._tensorstore.open({"driver": "zarr", "kvstore": spec}, open=True, read=True).result()
        except (ValueError, OSError, RuntimeError, IndexError, NotImplementedError) as error:
            raise self._unreadable(name, error) from error

    def _read(self, name: str, part: Callable[[Any], Any]) -> np.ndarray:
        store = self._open(name)
        try:
            return np.asarray(part(store).read().result())
        except (ValueError, OSError, RuntimeError, IndexError, NotImplementedError) as error:
            raise self._unreadable(name, error) from error

    def _unreadable(self, name: str, error: Exception) -> UserError:
        line = " ".join(str(error).split())[:200]
        return UserError(f"{self.path}: {name} cannot be read ({line}), expected an intact vault")

    def read(self, name: str) -> np.ndarray:
        """Reads an array without its first dimension, ``(R, ...)``."""
        store = self._open(f"{name}.")
        shape = store.shape[2:]
        if store.shape[0] != 1:
            raise UserError(f"{self.path}: {name} has {store.shape[0]} parallel streams, expected 1")
        size = self.rows * int(np.prod(shape, dtype=np.float64)) * store.dtype.numpy_dtype.itemsize
        require_memory(self.path, name, size)
        return self._read(f"{name}.", lambda store: store[0, : self.rows])


def _all_agents(flags: np.ndarray) -> np.ndarray:
    return np.asarray((flags.reshape(len(flags), -1) != 0).all(1))


def _array(path: Path, file: h5py.File, key: str) -> np.ndarray:
    found = file[key]
    if not isinstance(found, h5py.Dataset):
        raise UserError(f"{path}: {key} is a group, expected an array")
    if found.dtype.kind not in "biuf":
        raise UserError(f"{path}: {key} has type {found.dtype}, expected numbers")
    if not found.ndim or not found.size:
        raise UserError(f"{path}: {key} has shape {found.shape}, expected a row for every step")
    require_plausible(path, key, found.id)
    return np.asarray(found[:])


def _with_agents(path: Path, key: str, array: np.ndarray) -> np.ndarray:
    if array.ndim != 3:
        text = "images need an encoder first" if array.ndim > 3 else "steps, agents and columns"
        raise UserError(f"{path}: {key} has shape {array.shape}, expected (steps, agents, columns): {text}")
    return array


def _require_shapes(path: Path, arrays: Mapping[str, np.ndarray], agents: int) -> None:
    rows = len(next(iter(arrays.values())))
    for key, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise UserError(f"{path}: {key} has type {array.dtype}, expected numbers")
        if len(array) != rows:
            raise UserError(f"{path}: {key} has {len(array)} steps, expected {rows}")
        if array.ndim > 1 and array.shape[1] not in (1, agents):
            raise UserError(f"{path}: {key} has shape {array.shape}, expected {agents} agents")


def has_agents_in_one_array(path: Path) -> bool:
    """Whether a path is a file or directory of this module."""
    return is_vault(path) or is_omiga(path)


def read_team_arrays(path: Path) -> TeamArrays:
    """Reads a file of OMIGA or a vault."""
    return read_vault(path) if path.is_dir() else read_omiga(path)
