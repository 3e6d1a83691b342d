"""Ways to break an array in an HDF5 file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import h5py
import numpy as np

Break = Callable[[h5py.Group, str, np.ndarray], None]


def replace_by(value: Callable[[np.ndarray], Any]) -> Break:
    def change(episode: h5py.Group, key: str, array: np.ndarray) -> None:
        episode[key] = value(array)

    return change


def with_value(value: float) -> Break:
    def change(array: np.ndarray) -> np.ndarray:
        changed = array.astype(np.float64)
        changed[len(changed) // 2] = value
        return changed

    return replace_by(change)


def huge(chunks: bool) -> Break:
    def change(episode: h5py.Group, key: str, array: np.ndarray) -> None:
        shape = (10**12, *array.shape[1:])
        episode.create_dataset(key, shape, array.dtype, chunks=(1000, *array.shape[1:]) if chunks else None)

    return change


def bomb(episode: h5py.Group, key: str, array: np.ndarray) -> None:
    """A petabyte of zeros, of which not a byte is stored."""
    rows = 10**15 // array.dtype.itemsize
    episode.create_dataset(key, (rows, *array.shape[1:]), array.dtype, chunks=True, compression="gzip")


def virtual(episode: h5py.Group, key: str, array: np.ndarray) -> None:
    layout = h5py.VirtualLayout(array.shape, array.dtype)
    layout[...] = h5py.VirtualSource("/etc/passwd", "x", array.shape)
    episode.create_virtual_dataset(key, layout)


def stored_elsewhere(episode: h5py.Group, key: str, array: np.ndarray) -> None:
    episode.create_dataset(key, array.shape, array.dtype, external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def link(target: Any) -> Break:
    def change(episode: h5py.Group, key: str, _: np.ndarray) -> None:
        episode[key] = target

    return change


BREAKS: dict[str, Break] = {
    "missing": lambda *_: None,
    "a group": lambda episode, key, _: episode.create_group(key) and None,
    "one row less": replace_by(lambda array: array[:-1]),
    "one row more": replace_by(lambda array: np.concatenate([array, array[:1]])),
    "another axis": replace_by(lambda array: np.stack([array, array], -1)),
    "a scalar": replace_by(lambda array: array.ravel()[0]),
    "empty": replace_by(lambda array: array[:0]),
    "text": replace_by(lambda array: array.astype("S8")),
    "objects": replace_by(lambda array: np.array(["x"] * len(array), dtype=h5py.string_dtype())),
    "complex numbers": replace_by(lambda array: array.astype(np.complex64)),
    "a record": replace_by(lambda array: np.zeros(len(array), [("a", "f4"), ("b", "i4")])),
    "NaN": with_value(np.nan),
    "infinity": with_value(np.inf),
    "a million million rows": huge(chunks=False),
    "a million million rows in chunks": huge(chunks=True),
    "a compressed petabyte": bomb,
    "virtual": virtual,
    "stored in another file": stored_elsewhere,
    "a link to another file": link(h5py.ExternalLink("/etc/passwd", "x")),
    "a link to a missing file": link(h5py.ExternalLink("gone.hdf5", "x")),
    "a link within the file": link(h5py.SoftLink("/episode_0/rewards")),
    "a link to itself": link(h5py.SoftLink("/episode_1/rewards")),
}
