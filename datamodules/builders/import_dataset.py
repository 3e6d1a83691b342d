"""Imports single-agent datasets as team datasets, by assigning the robot's actuators to agents."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datamodules.builders.actuators import read_actuators, split_action
from datamodules.builders.collect import versions
from datamodules.builders.progress import terminal_progress
from datamodules.names import datasets_root, import_id
from datamodules.readers.single_agent import Recording, read_recording
from datamodules.readers.sources import file_digest, find_source, source_name
from datamodules.readers.team_dataset import contents_hash
from datamodules.writer import write_dataset
from momalit.core.errors import UserError
from momalit.core.team import TeamSpec
from momalit.core.trajectories import Trajectories
from momalit.envs import make_env, team_spec

logger = logging.getLogger(__name__)

IMPORT_VERSION = 2  # incremented when a change gives other contents for the same source


def import_dataset(
    source: str | Path, env: Mapping[str, Any], columns: str | None = None, output: str | Path | None = None
) -> Path:
    """Imports a single-agent dataset as a team dataset, unless it exists already.

    Rewards are unchanged. Actions are clipped to the team's bounds. A step that is both terminated and truncated
    counts as terminated. The last step of an episode without a flag counts as truncated. Last steps without a known
    next state are dropped (see ``datamodules.readers.single_agent``).

    Args:
        source: an HDF5 file in D4RL's layout; a Minari dataset's file or directory; or a Minari dataset's name, which
            is looked up under ``$MINARI_DATASETS_PATH`` and then on Minari's server.
        env: ``name`` and settings of the team's task, whose attribute ``drives`` assigns actuators to agents.
        columns: columns of the observations that are the state, as ``FIRST:END``. None selects all columns, or the
            first ones if the task lists the observation's width in ``state_prefix_widths``.
        output: new directory for the dataset; None for its default location under ``$MOMALIT_HOME``.

    Returns:
        the dataset's directory.

    Raises:
        UserError: the source is invalid or does not fit the task, a setting is unknown, or ``output`` exists.
    """
    settings = dict(env)
    task = settings.pop("name", None)
    if not isinstance(task, str):
        raise UserError(f"env: found {task!r}, expected the name of a task, e.g. --env ant")
    if output is not None and Path(output).expanduser().exists():
        raise UserError(f"output: {output} exists, expected a new directory")
    instance = make_env(task, **settings)
    try:
        spec = team_spec(instance, task, settings)
        actuators = read_actuators(instance, spec)
        state_prefix_widths = tuple(getattr(instance, "state_prefix_widths", ()))
    finally:
        instance.close()
    path = find_source(source)
    with terminal_progress() as progress:
        progress.add_task("checksum", total=None)
        digest = file_digest(path)
        label = source_name(path)
        inputs = json.dumps([digest, spec.to_dict(), columns, IMPORT_VERSION], sort_keys=True)
        name = import_id(task, label, settings, hashlib.sha256(inputs.encode()).hexdigest())
        target = Path(output).expanduser() if output is not None else datasets_root() / name
        if target.exists():
            logger.info("%s is already at %s", source, target)
            return target

        def select_columns(location: str, width: int) -> slice:
            return state_columns(columns, location, width, spec, state_prefix_widths)

        recording = read_recording(path, select_columns, sum(map(len, actuators)), spec.horizon, progress)
        trajectories = as_team_trajectories(recording, spec, actuators, path)
        provenance = {
            "dataset": label,
            "source": {"file": path.name, "bytes": path.stat().st_size, "sha256": digest},
            "settings": settings,
            "columns": columns,
            "transitions": len(trajectories),
            "counts": recording.counts,
            "versions": versions(),
            "sha256": contents_hash(spec, trajectories),
        }
        progress.add_task("writing", total=None)
        write_dataset(target, name, spec, trajectories, provenance)
    logger.info("%s", summary(path, recording))
    return target


def summary(path: Path, recording: Recording) -> str:
    """One line for the log: the size of the import and the steps that needed special treatment."""
    counts = recording.counts
    parts = [
        f"{path}: {len(recording.reward)} transitions in {len(recording.lengths)} episodes,"
        f" {int(recording.terminated.sum())} of which terminated"
    ]
    if n := counts.get("left out"):
        parts.append(f"{n} last steps left out because the file has no next_observations")
    if n := counts.get("extrapolated"):
        parts.append(f"{n} observations after terminal steps extrapolated")
    if n := counts["ended without a flag"]:
        parts.append(f"{n} episodes end without a flag and count as truncated")
    if n := counts["ended both ways"]:
        parts.append(f"{n} steps are both terminated and truncated and count as terminated")
    return "; ".join(parts)


def state_columns(
    columns: str | None, location: str, width: int, spec: TeamSpec, state_prefix_widths: tuple[int, ...] = ()
) -> slice:
    """Selects the columns of an observation that are the team's state.

    Args:
        columns: ``FIRST:END``; None selects all columns, or the first ones if ``width`` is in ``state_prefix_widths``.
        location: file and key, for messages.
        width: number of columns of the observation.
        spec: the team's specification.
        state_prefix_widths: widths of observations that are known to begin with the state.

    Raises:
        UserError: their number is not that of the state's dimensions, or they are outside the observation.
    """
    size, task = spec.state_size, spec.task
    if columns is None:
        if width == size or width in state_prefix_widths:
            return slice(0, size)
        known = " or ".join(str(n) for n in sorted({size, *state_prefix_widths}))
        hint = "; --columns FIRST:END selects those of the state" if width > size else ""
        raise UserError(f"{location} has {width} columns, expected {known} for {task}{hint}")
    match = re.fullmatch(r"(\d+):(\d+)", columns)
    if match is None:
        raise UserError(f"columns: found {columns!r}, expected FIRST:END, e.g. 0:{size}")
    chosen = slice(int(match[1]), int(match[2]))
    if chosen.stop - chosen.start != size:
        raise UserError(
            f"columns: {columns} selects {chosen.stop - chosen.start} columns, expected the {size} of {task}'s state"
        )
    if chosen.stop > width:
        raise UserError(f"columns: found {columns!r}, but {location} has {width} columns")
    return chosen


def as_team_trajectories(
    recording: Recording, spec: TeamSpec, actuators: list[tuple[int, ...]], path: Path
) -> Trajectories:
    """Splits the actions ``(N, U)`` of a recording into agents' actions ``(N, A, U)`` and clips them to their bounds.

    Args:
        recording: the single-agent data.
        spec: the team's specification.
        actuators: indices of the actuators that each agent drives.
        path: for messages.
    """
    joint = split_action(recording.action, spec, actuators)
    clipped = joint.clip(spec.action_low().numpy(), spec.action_high().numpy())
    excess = float(np.abs(joint - clipped).max(initial=0.0))
    if excess > 0:
        logger.warning("%s: actions exceed their bounds by up to %.3g; clipped", path, excess)
    return Trajectories.from_lengths(
        torch.from_numpy(recording.state), torch.from_numpy(clipped), torch.from_numpy(recording.reward),
        torch.from_numpy(recording.terminated), torch.from_numpy(recording.truncated),
        torch.from_numpy(recording.lengths),
    )  # fmt: skip
