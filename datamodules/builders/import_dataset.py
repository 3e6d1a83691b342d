"""Imports what a single agent recorded as a team's dataset: the robot's actuators are shared out among its agents."""

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
from rich.console import Console
from rich.progress import Progress

from datamodules.builders.actuators import actuators, shared_out
from datamodules.builders.collect import versions
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

RULES = 1  # of how a source becomes a dataset; raised when the same source would give other contents


def import_dataset(
    source: str | Path, env: Mapping[str, Any], columns: str | None = None, output: str | Path | None = None
) -> Path:
    """Makes a team's dataset of a single agent's, unless it is there already.

    The rewards are the source's. Actions beyond the team's bounds are clipped. A step that ended both ways counts as
    terminated, one that ended an episode without a flag as truncated. Last steps whose successor a file does not hold
    are left out (see ``datamodules.readers.single_agent``).

    Args:
        source: an HDF5 file in D4RL's layout; a Minari dataset's file or directory; or a Minari dataset's name, looked
            for under ``$MINARI_DATASETS_PATH`` and then on Minari's server.
        env: ``name`` and settings of the team's task, which says by ``drives`` which actuators each agent has.
        columns: which columns of the observations are the state, as ``FIRST:END``; None takes all, or the first ones
            of an observation of a width that the task knows (``state_leads``).
        output: directory to make it in; None for its place under ``$MOMALIT_HOME``.

    Returns:
        the dataset's directory.

    Raises:
        UserError: the source has a fault or does not fit the task, a setting is unknown, or ``output`` exists.
    """
    settings = dict(env)
    task = settings.pop("name", None)
    if not isinstance(task, str):
        raise UserError(f"env: found {task!r}, expected the name of a task, e.g. --env ant")
    if output is not None and Path(output).expanduser().exists():
        raise UserError(f"output: {output} exists, expected a new directory")
    live = make_env(task, **settings)
    try:
        spec = team_spec(live, task, settings)
        slots = actuators(live, spec)
        leads = tuple(getattr(live, "state_leads", ()))
    finally:
        live.close()
    path = find_source(source)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        progress.add_task("checksum", total=None)
        digest = file_digest(path)
        label = source_name(path)
        rests_on = json.dumps([digest, spec.to_dict(), columns, RULES], sort_keys=True)
        name = import_id(task, label, settings, hashlib.sha256(rests_on.encode()).hexdigest())
        target = Path(output).expanduser() if output is not None else datasets_root() / name
        if target.exists():
            logger.info("%s is already at %s", source, target)
            return target

        def choose(where: str, width: int) -> slice:
            return state_columns(columns, where, width, spec, leads)

        recording = read_recording(path, choose, sum(map(len, slots)), spec.horizon, progress)
        trajectories = as_team(recording, spec, slots, path)
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
    """What was imported and what was decided about it, in one line."""
    counts = recording.counts
    parts = [
        f"{path}: {len(recording.reward)} transitions in {len(recording.lengths)} episodes,"
        f" {int(recording.terminated.sum())} of which terminated"
    ]
    if n := counts.get("left out"):
        parts.append(f"{n} last steps left out, as the file holds no next_observations to say what they led to")
    if n := counts.get("left out, terminated"):
        parts.append(f"{n} of them terminated, so a world model of this data never ends an episode")
    if n := counts["ended without a flag"]:
        parts.append(f"{n} episodes end without a flag and count as truncated")
    if n := counts["ended both ways"]:
        parts.append(f"{n} end both ways and count as terminated")
    return "; ".join(parts)


def state_columns(columns: str | None, where: str, width: int, spec: TeamSpec, leads: tuple[int, ...] = ()) -> slice:
    """The columns of an observation that are the team's state.

    Args:
        columns: ``FIRST:END``, or None for all, or for the first where the width is one of ``leads``.
        where: file and key, for messages.
        width: of the observation.
        spec: the team.
        leads: widths of observations that are known to begin with the state.

    Raises:
        UserError: they are not as many as the state has, or not in the observation.
    """
    size, task = spec.state_size, spec.task
    if columns is None:
        if width == size or width in leads:
            return slice(0, size)
        known = " or ".join(str(n) for n in sorted({size, *leads}))
        hint = "; --columns FIRST:END says which of them are the state" if width > size else ""
        raise UserError(f"{where} has {width} columns, expected {known} for {task}{hint}")
    match = re.fullmatch(r"(\d+):(\d+)", columns)
    if match is None:
        raise UserError(f"columns: found {columns!r}, expected FIRST:END, e.g. 0:{size}")
    chosen = slice(int(match[1]), int(match[2]))
    if chosen.stop - chosen.start != size:
        raise UserError(
            f"columns: {columns} takes {chosen.stop - chosen.start} columns, expected {size}, {task}'s state"
        )
    if chosen.stop > width:
        raise UserError(f"columns: found {columns!r}, but {where} has {width} columns")
    return chosen


def as_team(recording: Recording, spec: TeamSpec, slots: list[tuple[int, ...]], path: Path) -> Trajectories:
    """The recording with its action ``(N, U)`` shared out among the agents, ``(N, A, U)``, and clipped to their bounds.

    Args:
        recording: what one agent did.
        spec: the team.
        slots: for every agent the components that it drives.
        path: for messages.
    """
    joint = shared_out(recording.action, spec, slots)
    clipped = joint.clip(spec.action_low().numpy(), spec.action_high().numpy())
    beyond = float(np.abs(joint - clipped).max(initial=0.0))
    if beyond > 0:
        logger.warning("%s: actions goes %.3g beyond its bounds; clipped", path, beyond)
    return Trajectories.from_lengths(
        torch.from_numpy(recording.state), torch.from_numpy(clipped), torch.from_numpy(recording.reward),
        torch.from_numpy(recording.terminated), torch.from_numpy(recording.truncated),
        torch.from_numpy(recording.lengths),
    )  # fmt: skip
