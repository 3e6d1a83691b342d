"""Imports a table of a team's steps (CSV or Parquet) as a dataset."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from datamodules.builders.collect import versions
from datamodules.names import datasets_root, import_id
from datamodules.readers.action_columns import action_part, joint_action
from datamodules.readers.last_steps import Cut, cut
from datamodules.readers.sources import file_digest
from datamodules.readers.table_layout import TableLayout, read_layout
from datamodules.readers.table_steps import Steps, team_steps
from datamodules.readers.team_dataset import contents_hash
from datamodules.writer import write_dataset
from momalit.core.errors import UserError
from momalit.core.team import AgentSpec, TeamSpec
from momalit.core.trajectories import Trajectories
from momalit.envs.spec_from_env import index_map

logger = logging.getLogger(__name__)


def import_table(source: str | Path, layout: str | Path, output: str | Path | None = None) -> Path:
    """Imports a table, unless it exists already.

    An episode's last row without actions is its last observation. If there is none, the observation after the last
    step is unknown: the step is left out, unless it terminated; then its next observation is extrapolated from the last
    two, so that a world model learns when episodes end.

    Args:
        source: a CSV (also compressed), TSV or Parquet file with one row per step, or one per step and agent.
        layout: a YAML file that says what the columns are, see ``TableLayout``.
        output: new directory for the dataset; None for its default location under ``$MOMALIT_HOME``.

    Returns:
        the dataset's directory.

    Raises:
        UserError: the table or the layout is invalid, or ``output`` exists.
    """
    path, layout_path = Path(source).expanduser(), Path(layout).expanduser()
    if output is not None and Path(output).expanduser().exists():
        raise UserError(f"output: {output} exists, expected a new directory")
    described = read_layout(layout_path)
    if not path.is_file():
        raise UserError(f"source: found no file {str(path)!r}, expected a CSV or Parquet file")
    digest = file_digest(path)
    key = hashlib.sha256(json.dumps([digest, asdict(described)], sort_keys=True).encode()).hexdigest()
    name = import_id(described.task or _stem(path), _stem(path), {}, key)
    target = Path(output).expanduser() if output is not None else datasets_root() / name
    if target.exists():
        logger.info("%s is already at %s", source, target)
        return target
    steps = team_steps(path, described)
    spec, trajectories, counts = as_dataset(path, described, steps)
    provenance = {
        "dataset": path.name,
        "source": {"file": path.name, "bytes": path.stat().st_size, "sha256": digest},
        "layout": asdict(described),
        "columns": steps.columns,
        "transitions": len(trajectories),
        "counts": counts,
        "versions": versions(),
        "sha256": contents_hash(spec, trajectories),
    }
    write_dataset(target, name, spec, trajectories, provenance)
    logger.info("%s", _summary(path, spec, trajectories, counts))
    return target


def as_dataset(path: Path, layout: TableLayout, steps: Steps) -> tuple[TeamSpec, Trajectories, dict[str, int]]:
    """Builds the team and its trajectories from the steps of a table.

    Returns:
        the team, the trajectories, and numbers of steps that needed special treatment, by reason.

    Raises:
        UserError: a value is missing or not finite, an action is invalid, or no episode has a step.
    """
    rows = _cut(path, steps)
    _require_numbers(path, steps, rows)
    observations = {name: rows.states(array) for name, array in steps.observations.items()}
    agents = list(steps.actions)
    sources, observed, _ = index_map(observations, {name: observations[name].shape[1] for name in agents})
    state = np.stack([observations[key][:, column] for key, column in sources], 1).astype(np.float32)
    how = (layout.discrete, layout.choices, layout.bounds)
    parts = [action_part(path, name, steps.actions[name][rows.transitions], *how) for name in agents]
    spec = TeamSpec(
        task=layout.task or _stem(path),
        agents=tuple(AgentSpec(name, observed[name], *part[1:]) for name, part in zip(agents, parts, strict=True)),
        state_size=len(sources),
        discrete=layout.discrete,
        horizon=int(rows.lengths.max()),
        sources=sources,
    )
    n = len(rows.transitions)
    action = joint_action([part[0] for part in parts], spec)
    terminated = np.zeros(n, bool)
    last = rows.last()
    terminated[last] = steps.terminated[rows.transitions[last]]
    truncated = np.zeros(n, bool)
    truncated[last] = ~terminated[last]
    reward = steps.reward[rows.transitions].astype(np.float32)
    arrays = (state, action, reward, terminated, truncated, rows.lengths)
    counts = {"left out": rows.left_out, "extrapolated": int(rows.added.sum())}
    return spec, Trajectories.from_lengths(*map(torch.from_numpy, arrays)), counts


def _cut(path: Path, steps: Steps) -> Cut:
    acts = np.stack([~np.isnan(actions).all(1) for actions in steps.actions.values()], 1)
    starts = np.append(True, np.diff(steps.episode) != 0)
    ends = np.append(starts[1:], True)
    for wrong, found in (
        (acts.any(1) & ~acts.all(1), "actions of some agents only, expected those of all or of none"),
        (~acts.any(1) & ~ends, "no actions before the end of an episode, expected them at every step but the last"),
    ):
        if wrong.any():
            raise UserError(f"{path}: step {int(np.flatnonzero(wrong)[0]) + 1} of the table: found {found}")
    rows = cut(starts, steps.terminated, np.asarray(acts.all(1)))
    if not len(rows.lengths):
        raise UserError(f"{path}: found no episode of two or more rows, expected at least one")
    return rows


def _require_numbers(path: Path, steps: Steps, cut: Cut) -> None:
    arrays = [(f"observation of {name}", array, cut.rows) for name, array in steps.observations.items()]
    arrays += [(f"action of {name}", array, cut.transitions) for name, array in steps.actions.items()]
    arrays.append(("reward", steps.reward[:, None], cut.transitions))
    for name, array, rows in arrays:
        finite = np.isfinite(array[rows])
        wrong = np.flatnonzero(~finite.all(1))
        if len(wrong):
            value = array[rows[wrong[0]]][~finite[wrong[0]]][0]
            raise UserError(
                f"{path}: {name} in step {int(rows[wrong[0]]) + 1} of the table: found"
                f" {'an empty cell' if np.isnan(value) else value}, expected a number ({len(wrong)} such steps)"
            )


def _summary(path: Path, spec: TeamSpec, trajectories: Trajectories, counts: dict[str, int]) -> str:
    kind = f"{spec.action_size} choices" if spec.discrete else "continuous actions"
    parts = [
        f"{path}: {len(trajectories)} transitions in {len(trajectories.lengths)} episodes of {', '.join(spec.names)}"
        f" with {kind}, {spec.state_size} state columns, {int(trajectories.terminated.sum())} episodes terminated"
    ]
    if n := counts["left out"]:
        parts.append(f"{n} last steps left out because the observation after them is unknown")
    if n := counts["extrapolated"]:
        parts.append(f"{n} observations after terminated steps extrapolated")
    return "; ".join(parts)


def _stem(path: Path) -> str:
    """The file's name without its suffixes."""
    return path.name.partition(".")[0]
