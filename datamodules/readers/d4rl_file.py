"""D4RL's HDF5 layout: one array per key with one row per step, all episodes concatenated."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from rich.progress import Progress

from datamodules.readers.hdf5_file import require_plausible
from momalit.core.errors import UserError

BLOCK_ROWS = 2**16  # rows read at a time
D4RL_KEYS = ("observations", "actions", "rewards", "terminals")


class D4RLFile:
    """An open file in D4RL's layout, read in blocks of rows.

    Args:
        path: for messages.
        file: the open file. It must stay open until everything is read.
        progress: displays the progress of reading a key.

    Raises:
        UserError: a key is missing, or there are no steps.
    """

    def __init__(self, path: Path, file: h5py.File, progress: Progress) -> None:
        self.path, self._file, self._progress = path, file, progress
        for key in D4RL_KEYS:
            if not isinstance(file.get(key), h5py.Dataset):
                raise UserError(f"{path}: {key} is missing, found {', '.join(file)}, expected {', '.join(D4RL_KEYS)}")
            require_plausible(path, key, file[key].id)
        self.n_steps = int(file["rewards"].size)
        if self.n_steps == 0:
            raise UserError(f"{path}: rewards has shape {file['rewards'].shape}, expected at least one step")

    def __contains__(self, key: str) -> bool:
        return isinstance(self._file.get(key), h5py.Dataset)

    def width(self, key: str) -> int:
        """Number of columns of a key."""
        shape = self._file[key].shape
        if len(shape) != 2:
            raise UserError(f"{self.path}: {key} has shape {shape}, expected one row for each of {self.n_steps} steps")
        return int(shape[1])

    def rows(self, key: str, columns: slice, width: int) -> np.ndarray:
        """Reads columns of a key ``(N, width)`` as float32 ``(N, columns)``. All values are finite."""
        return self._read(key, (self.n_steps, width), columns)

    def column(self, key: str) -> np.ndarray:
        """Reads a key of shape ``(N,)`` or ``(N, 1)`` as float32 ``(N,)``. All values are finite."""
        has_two_axes = self._file[key].shape == (self.n_steps, 1)
        return self._read(key, (self.n_steps, 1) if has_two_axes else (self.n_steps,), slice(None)).reshape(-1)

    def flag(self, key: str) -> np.ndarray:
        """Reads a key of zeros and ones as bool ``(N,)``."""
        values = self.column(key)
        self._raise_if_any(key, (values != 0) & (values != 1), values, "0 or 1")
        return values != 0

    def _read(self, key: str, shape: tuple[int, ...], columns: slice) -> np.ndarray:
        source = self._file[key]
        require_plausible(self.path, key, source.id)
        if source.shape != shape:
            raise UserError(f"{self.path}: {key} has shape {source.shape}, expected {shape}")
        if source.dtype.kind not in "biuf":
            raise UserError(f"{self.path}: {key} has type {source.dtype}, expected numbers")
        selected = (range(shape[1])[columns],) if len(shape) == 2 else ()
        values = np.empty((self.n_steps, *map(len, selected)), np.float32)
        # Blocks are whole chunks, so that no chunk is decompressed twice.
        chunk = source.chunks[0] if source.chunks else 1
        block = max(1, BLOCK_ROWS // chunk) * chunk
        with np.errstate(over="ignore"):  # values too large for float32 become infinite and raise an error below
            for start in self._progress.track(range(0, self.n_steps, block), description=f"reading {key}"):
                rows = slice(start, min(start + block, self.n_steps))
                if not selected:
                    values[rows] = source[rows]
                elif source.chunks:
                    values[rows] = source[rows, columns]
                else:  # selecting columns of a contiguous array is faster in memory than on disk
                    values[rows] = source[rows][:, columns]
        invalid = ~np.isfinite(values).reshape(self.n_steps, -1).all(axis=1)
        self._raise_if_any(key, np.asarray(invalid), values, "finite numbers")
        return values

    def _raise_if_any(self, key: str, invalid: np.ndarray, values: np.ndarray, expected: str) -> None:
        """Raises a UserError that names the first step where ``invalid`` ``(N,)`` is True, if any."""
        if invalid.any():
            row = int(np.flatnonzero(invalid)[0])
            found = np.atleast_1d(values[row])
            bad = found[~np.isfinite(found)] if not np.isfinite(found).all() else found
            raise UserError(
                f"{self.path}: {key} at step {row}: found {bad[0].item():g}, expected {expected}"
                f" ({int(invalid.sum())} such steps)"
            )
