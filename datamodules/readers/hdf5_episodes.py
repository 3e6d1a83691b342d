"""The episodes of a Minari HDF5 file, read key by key into one array each."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from momalit.core.errors import UserError

NAME = re.compile(r"episode_(\d+)")
BOOKKEEPING = 2**18  # bytes of a file's bookkeeping kept in memory; every array is opened once or twice


class Episodes:
    """The episode groups of an open file, in the order of their numbers or in another.

    Args:
        path: for messages.
        file: the open file; needed as long as anything is read.
        arrange: of the number of episodes E, gives the order in which to read them, a permutation of 0 to E - 1.

    Raises:
        UserError: there are no episodes, or an episode has no rewards or no steps.
    """

    def __init__(self, path: Path, file: h5py.File, arrange: Callable[[int], Sequence[int]] | None = None) -> None:
        self.path = path
        self._file = file
        _keep_little(file)
        numbers = sorted(int(match[1]) for name in file if (match := NAME.fullmatch(name)))
        if not numbers:
            raise UserError(f"{path}: found keys {list(file)[:5]}, expected groups episode_0, episode_1, ...")
        self.order = list(range(len(numbers)) if arrange is None else arrange(len(numbers)))
        self.names = [f"episode_{numbers[place]}" for place in self.order]
        self._ids = [h5py.h5g.open(file.id, name.encode()) for name in self.names]
        self.lengths: list[int] = []
        for i, name in enumerate(self.names):
            shape = self._open(i, "rewards").shape
            if not shape or shape[0] == 0:
                raise UserError(f"{path}: {name}/rewards has shape {shape}, expected at least one step")
            self.lengths.append(shape[0])

    @property
    def n_steps(self) -> int:
        return sum(self.lengths)

    def keys(self, group: str) -> list[str]:
        """Names inside a group of the first episode.

        Raises:
            UserError: it is missing or no group.
        """
        where = f"{self.names[0]}/{group}"
        if where not in self._file:
            raise UserError(f"{self.path}: {where} is missing, found {', '.join(self._file[self.names[0]])}")
        found = self._file[where]
        if not isinstance(found, h5py.Group):
            raise UserError(f"{self.path}: {where} is one array {found.shape}, expected a group keyed by agent")
        return list(found)

    def is_group(self, key: str) -> bool:
        """Whether the key is a group in the first episode."""
        return isinstance(self._file.get(f"{self.names[0]}/{key}"), h5py.Group)

    def width(self, key: str) -> int:
        """Number of columns of a key in the first episode."""
        return int(np.prod(self._open(0, key).shape[1:], dtype=np.int64))

    def read(
        self,
        key: str,
        extra: int = 0,
        width: int | None = None,
        dtype: Any = np.float32,
        columns: slice = slice(None),
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """One key of all episodes.

        Args:
            key: path within the episode.
            extra: rows an episode has beyond its steps: 1 for observations.
            width: number of columns expected; None takes that of the first episode.
            dtype: of the result; None keeps the file's.
            columns: those to keep; the others are not looked at.
            out: where to put the result, of its shape and of the type wanted; None makes room.

        Returns:
            ``(sum of rows, number of columns)``, all finite.

        Raises:
            UserError: a key is missing, is not numeric, has another shape, or holds a value that is not finite.
        """
        if width is None:
            width = self.width(key)
        kept = len(range(width)[columns])
        n_rows = self.n_steps + extra * len(self.names)
        if out is None:
            out = np.empty((n_rows, kept), self._open(0, key).dtype if dtype is None else dtype)
        array = out
        wrong = np.zeros(n_rows, bool)
        end = 0
        for i, length in enumerate(self.lengths):
            source = self._open(i, key)
            shape = source.shape
            if not shape or shape[0] != length + extra or int(np.prod(shape[1:], dtype=np.int64)) != width:
                expected = (length + extra, width) if width != 1 else (length + extra,)
                raise UserError(f"{self.path}: {self.names[i]}/{key} has shape {shape}, expected {expected}")
            kind = source.dtype
            if kind.kind not in "biuf":
                raise UserError(f"{self.path}: {self.names[i]}/{key} has type {kind}, expected numbers")
            if dtype is None:
                array = array.astype(np.result_type(array, kind), copy=False)
            begin, end = end, end + shape[0]
            rows = array[begin:end]
            # Straight to its place where nothing need be converted or left out, so that nothing is there twice.
            direct = kind == array.dtype and kept == width and rows.flags.c_contiguous
            piece = rows if direct else np.empty((len(rows), width), kind)
            if piece.size:
                source.read(h5py.h5s.ALL, h5py.h5s.ALL, piece)
            if not direct:
                rows[:] = piece[:, columns]
            if array.dtype.kind == "f":
                wrong[begin:end] = ~np.isfinite(rows).all(1)
        self.refuse(key, wrong, array, "finite numbers", extra)
        return array

    def refuse(self, key: str, wrong: np.ndarray, values: np.ndarray, expected: str, extra: int = 0) -> None:
        """Raises a UserError that names the first row where ``wrong`` ``(rows,)`` holds, if there is one."""
        if not wrong.any():
            return
        row = int(np.flatnonzero(wrong)[0])
        ends = np.cumsum(np.asarray(self.lengths) + extra)
        episode = int(np.searchsorted(ends, row, side="right"))
        step = row - (int(ends[episode - 1]) if episode else 0)
        found = np.asarray(values[row]).ravel()
        bad = found[~np.isfinite(found)] if found.dtype.kind == "f" and not np.isfinite(found).all() else found
        raise UserError(
            f"{self.path}: {self.names[episode]}/{key} at step {step}: found {bad[0].item()}, expected {expected}"
            f" ({int(wrong.sum())} such rows)"
        )

    def _open(self, i: int, key: str) -> Any:
        """The low-level handle: reading through h5py's objects took half as long again."""
        try:
            found = h5py.h5o.open(self._ids[i], key.encode())
        except KeyError:
            near = ", ".join(self._file[self.names[i]])
            raise UserError(f"{self.path}: {self.names[i]}/{key} is missing, the episode has {near}") from None
        if not isinstance(found, h5py.h5d.DatasetID):
            raise UserError(f"{self.path}: {self.names[i]}/{key} is a group, expected an array")
        return found


def _keep_little(file: h5py.File) -> None:
    """Bounds what HDF5 keeps of the file: by itself it took a fifth of the memory of a million transitions."""
    cache = file.id.get_mdc_config()
    cache.set_initial_size = True
    cache.min_size = cache.initial_size = cache.max_size = BOOKKEEPING
    file.id.set_mdc_config(cache)
