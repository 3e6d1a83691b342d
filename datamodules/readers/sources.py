"""Finds the source of an import: a file, a Minari dataset's directory, or a Minari dataset by name."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import re
from pathlib import Path

from datamodules.readers.team_dataset import find_data_file
from datamodules.writer import METADATA_FILE
from momalit.core.errors import UserError

logger = logging.getLogger(__name__)

MINARI_ID = re.compile(r"[-\w][-\w/]*-v\d+")


def require_source(source: str | Path) -> None:
    """Checks that a source is a path or could be the name of a Minari dataset.

    Raises:
        UserError: it is neither.
    """
    if not Path(source).expanduser().exists() and not MINARI_ID.fullmatch(str(source)):
        raise UserError(
            f"source: found no file {str(source)!r}, expected an HDF5 file in D4RL's layout, a Minari dataset's"
            " directory, or a Minari dataset's name such as mujoco/ant/medium-v0"
        )


def find_source(source: str | Path) -> Path:
    """Finds the HDF5 file of a path or of a Minari dataset's name. A missing Minari dataset is downloaded.

    Raises:
        UserError: there is no such file, or the download fails.
    """
    path = Path(source).expanduser()
    if path.exists():
        return find_data_file(path)
    require_source(source)
    root = Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets")
    if not (root / source).exists():
        import minari

        logger.info("downloading %s to %s", source, root)
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # Minari prints its progress
                minari.download_dataset(str(source))
        except Exception as error:  # the type depends on Minari's storage client
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(
                f"source: found no {source} in {root}, and it cannot be downloaded ({reason}), expected a file, a"
                " directory or the name of a dataset on Minari's server"
            ) from error
    return find_data_file(root / source)


def file_digest(path: Path) -> str:
    """SHA-256, in hex, of a file.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def source_name(path: Path) -> str:
    """Name of a source: the identifier of its Minari dataset, or else the file name without suffix."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        return str(json.loads((path.parent / METADATA_FILE).read_text())["dataset_id"])
    return path.stem
