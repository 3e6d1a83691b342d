"""Opens HDF5 files that someone else wrote, and refuses what could reach beyond the file or fill the memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from momalit.core.errors import UserError

METADATA_CACHE = 2**18  # bytes; a small cache is enough, because each array is opened only a few times
MOST_COMPRESSED = 1100  # times smaller at most: deflate, the best of HDF5's own filters, reaches 1032


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Opens a file for reading.

    Raises:
        UserError: the path is not a regular file, the file cannot be read as HDF5, or it has a link that leads
            elsewhere. The same for errors of HDF5 during the block.
    """
    if not path.is_file():
        raise UserError(f"{path}: found no regular file, expected an HDF5 file")
    try:
        with h5py.File(path, "r") as file:
            _limit_metadata_cache(file)
            _require_hard_links(path, file)
            yield file
    except (OSError, RuntimeError) as error:
        line = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read as HDF5 ({line}), expected an intact file") from error


def require_plausible(path: Path, name: str, array: Any) -> None:
    """Checks that an array is stored in its file and fits into memory, before it is read.

    Args:
        path: the file.
        name: name of the array, for messages.
        array: ``h5py``'s low-level dataset.

    Raises:
        UserError: it is stored in other files, or its declared shape is not plausible.
    """
    size = int(np.prod(array.shape, dtype=np.float64)) * array.dtype.itemsize
    most = MOST_COMPRESSED * path.stat().st_size if size > 2**20 else size
    if size > most:
        raise UserError(
            f"{path}: {name} has shape {array.shape}, expected at most {most / 1e9:.3g} GB, which a file of this size"
            " can hold"
        )
    require_memory(path, name, size)
    if array.get_offset() is not None:  # contiguous in this file
        return
    properties = array.get_create_plist()
    if properties.get_external_count() or properties.get_layout() == h5py.h5d.VIRTUAL:
        raise UserError(f"{path}: {name} is stored in other files, expected its values in this one")


def require_memory(path: Path, name: str, size: int) -> None:
    """Checks that ``size`` bytes fit into the machine's memory.

    Raises:
        UserError: they do not.
    """
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else size
    if size > available:
        raise UserError(
            f"{path}: {name} takes {size / 1e9:.3g} GB, expected at most this machine's memory of"
            f" {available / 1e9:.3g} GB"
        )


def _limit_metadata_cache(file: h5py.File) -> None:
    """Limits HDF5's metadata cache, which otherwise takes a fifth of the memory of a million transitions."""
    cache = file.id.get_mdc_config()
    cache.set_initial_size = True
    cache.min_size = cache.initial_size = cache.max_size = METADATA_CACHE
    file.id.set_mdc_config(cache)


def _require_hard_links(path: Path, file: h5py.File) -> None:
    def leads_elsewhere(name: bytes, info: Any) -> bytes | None:
        return None if info.type == h5py.h5l.TYPE_HARD else name

    found = file.id.links.visit(leads_elsewhere, info=True)
    if found is not None:
        raise UserError(f"{path}: {found.decode(errors='replace')} is a link, expected groups and arrays of this file")
