"""Imports arrays per agent (see ``datamodules.readers.npy_arrays``) as a dataset."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datamodules.builders.imported import Built, import_once
from datamodules.builders.steps_dataset import kind_of_actions
from datamodules.readers.action_columns import action_part, joint_action
from datamodules.readers.last_steps import are_time_limits
from datamodules.readers.npy_arrays import AgentArrays, read_agent_arrays
from momalit.core.checks import require_numbers
from momalit.core.team import STATE, AgentSpec, TeamSpec
from momalit.core.trajectories import Trajectories
from momalit.envs.spec_from_env import index_map

logger = logging.getLogger(__name__)

TOLERANCE = 1e-5  # allowed difference of x between a next observation and the next row, relative to 1 + |x|


def import_arrays(
    source: str | Path, episode_length: int | None = None, output: str | Path | None = None, reward: str = "mean"
) -> Path:
    """Imports a folder of NPY files or an NPZ file, unless it exists already.

    An episode ends at a done flag, where the next observation differs from the next row, after ``episode_length``
    steps, and at the end. Whether a flag means that the task or a time limit ended it is not recorded: flags after
    equally many steps in all episodes are time limits, others are terminations.

    Args:
        source: the folder or file.
        episode_length: steps after which every episode ended, for data whose flags do not say so; None for no limit.
        output: new directory for the dataset; None for its default location under ``$MOMALIT_HOME``.
        reward: the team's reward: ``mean`` or ``sum`` of the agents', or the name of one of them.

    Returns:
        the dataset's directory.

    Raises:
        UserError: the arrays are invalid, or ``output`` exists.
    """
    path = Path(source).expanduser()
    require_numbers("--", {"episode_length": episode_length}, least=1, optional=True)

    def build() -> Built:
        return *as_dataset(path, read_agent_arrays(path, reward), episode_length), {}

    settings = {"episode_length": episode_length, "reward": reward}
    return import_once(path, output, path.stem, settings, build, lambda *found: _summary(path, *found))


def _summary(path: Path, spec: TeamSpec, trajectories: Trajectories, _: Mapping[str, Any]) -> str:
    sizes = f"{len(trajectories)} transitions in {len(trajectories.lengths)} episodes of {spec.n_agents} agents"
    return f"{path}: {sizes} with {kind_of_actions(spec)}, {int(trajectories.terminated.sum())} of which terminated"


def as_dataset(path: Path, arrays: AgentArrays, episode_length: int | None) -> tuple[TeamSpec, Trajectories]:
    """Builds the team and its trajectories.

    Raises:
        UserError: an action cannot be one.
    """
    n = len(arrays.reward)
    ends = _ends(arrays, episode_length)
    last = np.flatnonzero(ends)
    lengths = np.diff(last, prepend=-1)
    flagged = arrays.done[last]
    limited = are_time_limits(lengths[flagged])
    terminated = ends & arrays.done & (not limited)
    if limited:
        logger.info("%s: done flags stand at step %d throughout and count as a time limit", path, lengths[flagged][0])
    # Each episode's last next observation follows its last row.
    observations = {
        name: np.insert(array, last + 1, arrays.next_observations[name][last], axis=0)
        for name, array in arrays.observations.items()
    }
    agents = [name for name in observations if name != STATE]
    ordered = {name: observations[name] for name in ([STATE] if STATE in observations else []) + agents}
    sources, observed, _ = index_map(ordered, {name: ordered[name].shape[1] for name in agents})
    state = np.stack([observations[key][:, column] for key, column in sources], 1).astype(np.float32)
    parts = [action_part(path, name, arrays.actions[name], name in arrays.choosing) for name in agents]
    spec = TeamSpec(
        task=path.stem,
        agents=tuple(AgentSpec(name, observed[name], *part[1:]) for name, part in zip(agents, parts, strict=True)),
        state_size=len(sources),
        discrete=len(arrays.choosing) == len(agents),
        horizon=int(lengths.max()),
        sources=sources,
    )
    values = (
        state, joint_action([part[0] for part in parts], spec), arrays.reward.astype(np.float32), terminated,
        ends & ~terminated, lengths,
    )  # fmt: skip
    assert len(values[2]) == n
    return spec, Trajectories.from_lengths(*map(torch.from_numpy, values))


def _ends(arrays: AgentArrays, episode_length: int | None) -> np.ndarray:
    """Whether a step is the last of its episode, ``(N,)`` bool."""
    ends = arrays.done.copy()
    for name, after in arrays.next_observations.items():
        following = arrays.observations[name][1:]
        ends[:-1] |= (np.abs(after[:-1] - following) > TOLERANCE * (1 + np.abs(following))).any(1)
    ends[-1] = True
    if episode_length is not None:
        step = np.arange(len(ends))
        first = np.maximum.accumulate(np.where(np.append(True, ends[:-1]), step, 0))
        ends |= (step - first + 1) % episode_length == 0
    return ends
