"""Reads the episodes of a Minari HDF5 file, one array per key."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from datamodules.readers.hdf5_file import require_memory, require_plausible
from momalit.core.errors import UserError

EpisodeOrder = Callable[[int, Callable[[], np.ndarray]], Sequence[int]]

NAME = re.compile(r"episode_(\d+)")


class Episodes:
    """The episode groups of an open file, in the order of their numbers or in a given order.

    Args:
        path: for messages.
        file: the open file. It must stay open until everything is read.
        episode_order: called with the number of episodes E and a function that reads their returns ``(E,)``; returns
            the order in which they are read, a permutation of 0 to E - 1. None for the order of their numbers.

    Raises:
        UserError: there are no episodes, two have the same number, or one is no group or has no rewards or no steps.
    """

    def __init__(self, path: Path, file: h5py.File, episode_order: EpisodeOrder | None = None) -> None:
        self.path = path
        self._file = file
        names = _names(path, file)
        self.order = list(range(len(names)))
        if episode_order is not None:
            self.order = list(episode_order(len(names), lambda: np.array([self._return(name) for name in names])))
        self.names = [names[i] for i in self.order]
        self._ids = [self._group(name) for name in self.names]
        self._steps: dict[str, list[int]] = {}  # of every agent, once they are known
        self.lengths: list[int] = []
        for i, name in enumerate(self.names):
            shape = self._open(i, "rewards").shape
            if not shape or shape[0] == 0:
                raise UserError(f"{path}: {name}/rewards has shape {shape}, expected at least one step")
            self.lengths.append(shape[0])

    def _group(self, name: str) -> Any:
        """An episode's low-level handle."""
        found = h5py.h5o.open(self._file.id, name.encode())
        if not isinstance(found, h5py.h5g.GroupID):
            raise UserError(f"{self.path}: {name} is an array, expected a group with the arrays of an episode")
        return found

    def _return(self, name: str) -> float:
        """The sum of all rewards of an episode; NaN unless they are numbers, of which ``read`` complains."""
        rewards = self._file.get(f"{name}/rewards")
        numeric = isinstance(rewards, h5py.Dataset) and rewards.dtype.kind in "fiub"
        return float(np.sum(rewards[()], dtype=np.float64)) if numeric else float("nan")

    @property
    def n_steps(self) -> int:
        """Number of steps of all episodes."""
        return sum(self.lengths)

    def keys(self, group: str) -> list[str]:
        """Names of the members of a group of the first episode.

        Raises:
            UserError: the group is missing or is an array.
        """
        name = f"{self.names[0]}/{group}"
        if name not in self._file:
            raise UserError(f"{self.path}: {name} is missing, found {', '.join(self._file[self.names[0]])}")
        found = self._file[name]
        if not isinstance(found, h5py.Group):
            raise UserError(f"{self.path}: {name} is one array {found.shape}, expected a group keyed by agent")
        return list(found)

    def require_keys(self, group: str, known: Collection[str]) -> None:
        """Checks that a group has no further members in any episode. ``read`` finds out which are missing.

        Raises:
            UserError: an episode has a member that is not among ``known``.
        """
        for name in self.names:
            found = self._file.get(f"{name}/{group}")
            more = [key for key in found if key not in known] if isinstance(found, h5py.Group) else []
            if more:
                raise UserError(f"{self.path}: {self.names[0]}/{group}/{more[0]} is missing, but {name} has it")

    def is_group(self, key: str) -> bool:
        """Whether a key is a group in the first episode."""
        return isinstance(self._file.get(f"{self.names[0]}/{key}"), h5py.Group)

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of a key at one step of the first episode."""
        return tuple(self._open(0, key).shape[1:])

    def width(self, key: str) -> int:
        """Number of columns of a key in the first episode."""
        return int(np.prod(self.shape(key), dtype=np.int64))

    def steps_of(self, agent: str) -> list[int]:
        """Number of steps at which an agent acts in every episode; fewer than the episode has if it left.

        Raises:
            UserError: the agent's actions are missing, or there are none, or more than the episode has steps.
        """
        key = f"actions/{agent}"
        if key in self._steps:
            return self._steps[key]
        found = [(*self._open(i, key).shape, 0)[0] for i in range(len(self.names))]
        for i, (steps, length) in enumerate(zip(found, self.lengths, strict=True)):
            if not 0 < steps <= length:
                raise UserError(f"{self.path}: {self.names[i]}/{key} has {steps} rows, expected 1 to {length}")
        self._steps[key] = found
        return found

    def read(
        self,
        key: str,
        extra: int = 0,
        width: int | None = None,
        dtype: Any = np.float32,
        columns: slice = slice(None),
        out: np.ndarray | None = None,
        steps: Sequence[int] | None = None,
    ) -> np.ndarray:
        """Reads one key of all episodes.

        Args:
            key: path within the episode.
            extra: number of rows per episode beyond its number of steps: 1 for observations.
            width: expected number of columns; None for that of the first episode.
            dtype: type of the result; None for that of the file.
            columns: columns to return. The others are not checked.
            out: array for the result, with its shape and type; None allocates one.
            steps: number of steps that each episode must have of this key, which has ``extra`` rows more; the last row
                is repeated until the end of the episode. None for all steps.

        Returns:
            ``(total number of rows, number of columns)``, all finite.

        Raises:
            UserError: a key is missing, is not numeric, has another shape, or holds a value that is not finite.
        """
        if width is None:
            width = self.width(key)
        n_columns = len(range(width)[columns])
        n_rows = self.n_steps + extra * len(self.names)
        if out is None:
            type_ = np.dtype(self._open(0, key).dtype if dtype is None else dtype)
            require_memory(self.path, key, n_rows * n_columns * type_.itemsize)
            out = np.empty((n_rows, n_columns), type_)
        array = out
        invalid = np.zeros(n_rows, bool)
        end = 0
        for i, length in enumerate(self.lengths):
            source = self._open(i, key)
            shape = source.shape
            own = extra + (length if steps is None else steps[i])
            if not shape or shape[0] != own or int(np.prod(shape[1:], dtype=np.int64)) != width:
                expected = (own, width) if width != 1 else (own,)
                raise UserError(f"{self.path}: {self.names[i]}/{key} has shape {shape}, expected {expected}")
            file_dtype = source.dtype
            if file_dtype.kind not in "biuf":
                raise UserError(f"{self.path}: {self.names[i]}/{key} has type {file_dtype}, expected numbers")
            if dtype is None:
                array = array.astype(np.result_type(array, file_dtype), copy=False)
            begin, end = end, end + length + extra
            rows = array[begin : begin + own]
            # Reads directly into the result if there is nothing to convert or select, which avoids a copy.
            direct = file_dtype == array.dtype and n_columns == width and rows.flags.c_contiguous
            buffer = rows if direct else np.empty((len(rows), width), file_dtype)
            if buffer.size:
                source.read(h5py.h5s.ALL, h5py.h5s.ALL, buffer)
            if not direct:
                rows[:] = buffer[:, columns]
            array[begin + own : end] = rows[-1:]
            if array.dtype.kind == "f":
                invalid[begin : begin + own] = ~np.isfinite(rows).all(1)
        self.raise_if_any(key, invalid, array, "finite numbers", extra)
        return array

    def read_per_agent(self, key: str, n_agents: int, dtype: Any = np.float32) -> np.ndarray:
        """Reads rewards or flags of all episodes, which are the team's or one per agent.

        Args:
            key: path within the episode.
            n_agents: number of agents A.
            dtype: as in ``read``.

        Returns:
            ``(number of steps, 1)`` or ``(number of steps, A)``, all finite.

        Raises:
            UserError: there is another number of columns, or as in ``read``.
        """
        width = self.width(key)
        if width not in (1, n_agents):
            found, steps = tuple(self._open(0, key).shape), self.lengths[0]
            expected = f"({steps},) or one column per agent: ({steps}, {n_agents})"
            raise UserError(f"{self.path}: {self.names[0]}/{key} has shape {found}, expected {expected}")
        return self.read(key, width=width, dtype=dtype)

    def raise_if_any(self, key: str, invalid: np.ndarray, values: np.ndarray, expected: str, extra: int = 0) -> None:
        """Raises a UserError that names the first row where ``invalid`` ``(rows,)`` is True, if any."""
        if not invalid.any():
            return
        row = int(np.flatnonzero(invalid)[0])
        ends = np.cumsum(np.asarray(self.lengths) + extra)
        episode = int(np.searchsorted(ends, row, side="right"))
        step = row - (int(ends[episode - 1]) if episode else 0)
        found = np.asarray(values[row]).ravel()
        bad = found[~np.isfinite(found)] if found.dtype.kind == "f" and not np.isfinite(found).all() else found
        raise UserError(
            f"{self.path}: {self.names[episode]}/{key} at step {step}: found {bad[0].item()}, expected {expected}"
            f" ({int(invalid.sum())} such rows)"
        )

    def _open(self, i: int, key: str) -> Any:
        """Opens an array as a low-level handle. Reading through h5py's objects takes 1.5 times as long."""
        try:
            found = h5py.h5o.open(self._ids[i], key.encode())
        except KeyError:
            present = ", ".join(self._file[self.names[i]])
            raise UserError(f"{self.path}: {self.names[i]}/{key} is missing, the episode has {present}") from None
        if not isinstance(found, h5py.h5d.DatasetID):
            raise UserError(f"{self.path}: {self.names[i]}/{key} is a group, expected an array")
        require_plausible(self.path, f"{self.names[i]}/{key}", found)
        return found


def _names(path: Path, file: h5py.File) -> list[str]:
    """Names of the episodes of a file, in the order of their numbers, which may have leading zeros.

    Raises:
        UserError: there are none, or two have the same number.
    """
    by_number: dict[int, str] = {}
    for name in file:
        if match := NAME.fullmatch(name):
            other = by_number.setdefault(int(match[1]), name)
            if other != name:
                raise UserError(f"{path}: found {other} and {name}, expected each number of an episode once")
    if not by_number:
        raise UserError(f"{path}: found keys {list(file)[:5]}, expected groups episode_0, episode_1, ...")
    return [name for _, name in sorted(by_number.items())]
