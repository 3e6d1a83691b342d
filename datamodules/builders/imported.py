"""What all imports do: find out whether the result exists, name it, and write it with its origin."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datamodules.builders.collect import versions
from datamodules.names import datasets_root, import_id
from datamodules.readers.sources import file_digest
from datamodules.readers.team_dataset import contents_hash, require_spread
from datamodules.writer import write_dataset
from momalit.core.errors import UserError
from momalit.core.team import TeamSpec
from momalit.core.trajectories import Trajectories

logger = logging.getLogger(__name__)

MOST_FILES = 1000  # whose digests are listed one by one
COARSE = 1e-3  # of a column's range: steps of 32-bit floats that lose too much of it
Built = tuple[TeamSpec, Trajectories, Mapping[str, Any]]  # the team, its data, and further facts about their origin


def import_once(
    source: Path,
    output: str | Path | None,
    task: str,
    settings: Mapping[str, Any],
    build: Callable[[], Built],
    summarise: Callable[[TeamSpec, Trajectories, Mapping[str, Any]], str],
) -> Path:
    """Writes a dataset, unless one of the same source and settings exists already.

    Args:
        source: a file, or a directory whose files all count.
        output: new directory for the dataset; None for its default location under ``$MOMALIT_HOME``.
        task: name of the task.
        settings: JSON-serialisable settings of the import.
        build: reads the source.
        summarise: what to log about the result.

    Returns:
        the dataset's directory.

    Raises:
        UserError: the source cannot be read, or ``output`` exists.
    """
    if output is not None and Path(output).expanduser().exists():
        raise UserError(f"output: {output} exists, expected a new directory")
    files = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
    digests = {str(path.relative_to(source)) if source.is_dir() else path.name: file_digest(path) for path in files}
    key = hashlib.sha256(json.dumps([digests, settings], sort_keys=True).encode()).hexdigest()
    name = import_id(task, stem(source), {}, key)
    target = Path(output).expanduser() if output is not None else datasets_root() / name
    if target.exists():
        logger.info("%s is already at %s", source, target)
        return target
    with np.errstate(over="ignore"):  # found below
        spec, trajectories, facts = build()
    _require_32_bits(source, spec, trajectories)
    provenance = {
        "dataset": source.name,
        "source": digests if len(digests) <= MOST_FILES else {"files": len(digests), "sha256": key},
        **settings,
        **facts,
        "transitions": len(trajectories),
        "versions": versions(),
        "sha256": contents_hash(spec, trajectories),
    }
    write_dataset(target, name, spec, trajectories, provenance)
    logger.info("%s", summarise(spec, trajectories, facts))
    return target


def _require_32_bits(source: Path, spec: TeamSpec, trajectories: Trajectories) -> None:
    """Warns of columns of the state whose values 32-bit floats can hardly tell apart.

    Raises:
        UserError: a value is too large for 32 bits, or the rewards' spread is too large or too small.
    """
    tables = {"reward": trajectories.reward, "actions": trajectories.action}
    columns = {f"observations of {key}, column {number + 1}": i for i, (key, number) in enumerate(spec.sources)}
    tables |= {what: trajectories.state[:, i] for what, i in columns.items()}
    for what, table in tables.items():
        if not bool(torch.isfinite(table).all()):
            raise UserError(f"{source}: {what}: found a number beyond 3.4e38, expected one of 32 bits in another unit")
    require_spread(source, trajectories.reward.numpy())
    for what in columns:
        low, high = tables[what].aminmax()
        largest = float(torch.maximum(low.abs(), high.abs()))
        if high > low and np.spacing(np.float32(largest)) > COARSE * float(high - low):
            logger.warning(
                "%s: %s: from %.9g to %.9g, which 32-bit floats can hardly tell apart; subtract an offset",
                source, what, float(low), float(high),
            )  # fmt: skip


def stem(path: Path) -> str:
    """The name of a file or directory without its suffixes."""
    return path.name.partition(".")[0]
