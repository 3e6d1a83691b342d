"""Reads datasets in Minari's HDF5 layout into contiguous tensors. Errors name the file and the key."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datamodules.readers.hdf5_episodes import EpisodeOrder, Episodes
from datamodules.readers.hdf5_file import open_hdf5, require_memory
from datamodules.readers.spec_inference import inferred_spec, recorded_choices, state_columns, with_env
from datamodules.writer import DATA_FILE, METADATA_FILE, MOMALIT_KEY
from momalit.core.errors import UserError
from momalit.core.team import STATE, TeamSpec, who_is_there
from momalit.core.trajectories import Trajectories

logger = logging.getLogger(__name__)

SMALLEST_SPREAD, LARGEST_SPREAD = 1e-6, 1e15  # of the rewards


@dataclass(frozen=True)
class Dataset:
    """A dataset in memory.

    Args:
        path: its HDF5 file.
        spec: the team's specification.
        trajectories: all trajectories, in the requested order.
        order: episode number in the file of each trajectory.
        provenance: origin of the dataset according to its metadata; may be empty.
        sha256: digest of the contents (see ``contents_hash``).
    """

    path: Path
    spec: TeamSpec
    trajectories: Trajectories
    order: Sequence[int]
    provenance: dict[str, Any]
    sha256: str


def contents_hash(spec: TeamSpec, trajectories: Trajectories, order: Sequence[int] | None = None) -> str:
    """SHA-256, in hex, of the specification and of every number in the trajectories, and of nothing else.

    Args:
        spec: the team's specification.
        trajectories: the trajectories to hash.
        order: number of each trajectory; they are hashed by ascending number. None hashes them in the given order.
    """
    digest = hashlib.sha256(json.dumps(spec.to_dict(), sort_keys=True).encode())
    position = np.arange(len(trajectories.lengths)) if order is None else np.argsort(order)
    lengths, first = trajectories.lengths.numpy()[position], trajectories.first.numpy()[position]
    ranges = {"state": (first + position, lengths + 1)}
    for key in ("state", "action", "reward", "terminated", "truncated"):
        array = np.ascontiguousarray(getattr(trajectories, key).numpy())
        digest.update(f"{key} {array.dtype} {array.shape}".encode())
        for begin, count in zip(*ranges.get(key, (first, lengths)), strict=True):
            digest.update(array[begin : begin + count].data)
    digest.update(f"lengths {lengths.dtype} {lengths.shape}".encode())
    digest.update(lengths.data)
    return digest.hexdigest()


def read_dataset(
    path: str | Path,
    env: Mapping[str, Any] | None = None,
    episode_order: EpisodeOrder | None = None,
    may_import: bool = False,
) -> Dataset:
    """Reads and checks a dataset.

    A file without momalit's metadata may be any multi-agent Minari file with observations and actions keyed by agent.
    Its team is inferred from its columns and action spaces.

    Args:
        path: path of the HDF5 file or of the Minari dataset's directory.
        env: ``name`` and settings of an environment that fits the dataset, or new settings of the one it names.
        episode_order: called with the number of episodes E and a function that reads their returns ``(E,)``; returns
            their order in memory, a permutation of 0 to E - 1. None for the order of their numbers. It does not affect
            the digest.
        may_import: whether the dataset may name a module from which its environment is imported. A file that someone
            else wrote could run any code that way, so that ``env`` must name the same module otherwise.

    Raises:
        UserError: the dataset is invalid. The message names the file, the key, what was found and what was expected.
    """
    path = find_data_file(Path(path))
    metadata = _metadata(path)
    own_metadata = metadata.get(MOMALIT_KEY)
    with open_hdf5(path) as file:
        episodes = Episodes(path, file, episode_order)
        if own_metadata is not None:
            spec = TeamSpec.from_dict(own_metadata["team"])
            state = episodes.read(f"observations/{STATE}", extra=1, width=spec.state_size)
        else:
            spec, rows = inferred_spec(episodes, metadata)
            state = state_columns(spec, rows)
        action = _actions(episodes, spec, metadata if own_metadata is None else None)
        reward = _team_reward(path, episodes.read_per_agent("rewards", spec.n_agents))
        terminated, truncated = _checked_flags(episodes, spec.n_agents)
    lengths = torch.tensor(episodes.lengths)
    trajectories = Trajectories.from_lengths(
        torch.from_numpy(state), torch.from_numpy(action), torch.from_numpy(reward),
        torch.from_numpy(terminated), torch.from_numpy(truncated), lengths,
    )  # fmt: skip
    if (present := spec.present_index()) is not None:  # who has left does nothing, whatever number the file has
        trajectories.action.mul_(who_is_there(trajectories.state, present)[trajectories.row].unsqueeze(-1))
    provenance = dict(own_metadata["provenance"]) if own_metadata is not None else {}
    digest = contents_hash(spec, trajectories, episodes.order)
    if provenance.get("sha256", digest) != digest:
        raise UserError(f"{path}: contents have SHA-256 {digest}, expected {provenance['sha256']} from the metadata")
    named = str((spec.env or {}).get("name", ""))
    if ":" in named and not may_import and (env or {}).get("name") != named:
        logger.info("%s names the environment %s, which is code; data.env.name %s uses it", path, named, named)
        spec = replace(spec, env=None)
        digest = contents_hash(spec, trajectories, episodes.order)
    if env:
        spec = with_env(spec, env, path)
        digest = contents_hash(spec, trajectories, episodes.order)
    return Dataset(path, spec, trajectories, episodes.order, provenance, digest)


def find_data_file(path: Path) -> Path:
    """Finds the HDF5 file at a path or in a Minari dataset's directory.

    Raises:
        UserError: there is no such file.
    """
    path = path.expanduser()
    if path.is_dir():
        for candidate in (path / "data" / DATA_FILE, path / DATA_FILE):
            if candidate.is_file():
                return candidate
        raise UserError(f"{path}: found no data/{DATA_FILE}, expected a Minari dataset in HDF5 format")
    if not path.is_file():
        raise UserError(
            f"{path}: no such file, expected an HDF5 file or a Minari dataset directory; built-in datasets are given"
            " by name, e.g. data.dataset: reacher/expert-mix"
        )
    return path


def _metadata(path: Path) -> dict[str, Any]:
    file = path.parent / METADATA_FILE
    if not file.is_file():
        return {}
    try:
        metadata = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read as JSON ({_one_line(error)})") from error
    if not isinstance(metadata, dict) or not isinstance(metadata.get(MOMALIT_KEY, {}), dict):
        raise UserError(f"{file}: found {type(metadata).__name__}, expected a JSON object of metadata")
    required = ("team", "provenance") if MOMALIT_KEY in metadata else ()
    missing = [key for key in required if key not in metadata[MOMALIT_KEY]]
    if missing:
        raise UserError(f"{file}: {MOMALIT_KEY}.{missing[0]} is missing, expected {' and '.join(required)}")
    for key in required:
        if not isinstance(found := metadata[MOMALIT_KEY][key], dict):
            raise UserError(f"{file}: {MOMALIT_KEY}.{key}: found {found!r}, expected a JSON object")
    return metadata


def _actions(episodes: Episodes, spec: TeamSpec, metadata: dict[str, Any] | None) -> np.ndarray:
    """Reads the joint actions ``(N, A, U)``, padded with zeros."""
    recorded = recorded_choices(spec, metadata)
    shape = (episodes.n_steps, spec.n_agents, spec.action_size)
    require_memory(episodes.path, "actions", 4 * math.prod(shape))
    joint = np.zeros(shape, np.float32)
    for i, agent in enumerate(spec.agents):
        key = f"actions/{agent.name}"
        steps = None if agent.present is None else episodes.steps_of(agent.name)
        if agent.discrete:
            choices = recorded[agent.name]
            values = episodes.read(key, width=len(choices.sizes), dtype=None, steps=steps)
            index = choices.number(values)
            ends = [(first, first + size - 1) for first, size in zip(choices.start, choices.sizes, strict=True)]
            allowed = "an integer" if choices.single else "integers"
            allowed += f" from {' and '.join(f'{first} to {last}' for first, last in dict.fromkeys(ends))}"
            episodes.raise_if_any(key, index < 0, values, allowed)
            joint[np.arange(len(index)), i, index] = 1.0
        else:
            values = episodes.read(key, width=agent.action_size, out=joint[:, i, : agent.action_size], steps=steps)
            low, high = np.array(agent.low, np.float32), np.array(agent.high, np.float32)
            excess = float(np.maximum(low - values.min(0), values.max(0) - high).max(initial=0.0))
            if excess > 0:
                logger.warning("%s: %s exceeds its bounds by up to %.3g; clipped", episodes.path, key, excess)
                values.clip(low, high, out=values)
    return joint


def _team_reward(path: Path, reward: np.ndarray) -> np.ndarray:
    """Team reward ``(N,)``: the mean over agents of rewards ``(N, 1)`` or ``(N, n_agents)``.

    Raises:
        UserError: see ``require_spread``.
    """
    team = reward[:, 0] if reward.shape[1] == 1 else reward.mean(1, dtype=np.float32)
    require_spread(path, team)
    return team


def require_spread(path: Path, reward: np.ndarray) -> None:
    """Refuses a team's rewards ``(N,)`` with which 32-bit floats cannot compute.

    Raises:
        UserError: they vary so little or so much that their squares have too few bits.
    """
    spread = float(reward.std(dtype=np.float64))
    if spread and not SMALLEST_SPREAD < spread < LARGEST_SPREAD:
        raise UserError(
            f"{path}: rewards have a standard deviation of {spread:.3g}, expected {SMALLEST_SPREAD:g} to"
            f" {LARGEST_SPREAD:g}; give them in another unit"
        )


def _checked_flags(episodes: Episodes, n_agents: int) -> tuple[np.ndarray, np.ndarray]:
    """Terminated and truncated ``(N,)``: exactly one is True at the last step of an episode, none elsewhere."""
    terminated, truncated = _team_flags(episodes, n_agents)
    last = np.zeros(episodes.n_steps, bool)
    last[np.cumsum(episodes.lengths) - 1] = True
    for key, flag in (("terminations", terminated), ("truncations", truncated)):
        episodes.raise_if_any(key, flag & ~last, flag, "True only at the last step of an episode")
    unflagged = last & ~terminated & ~truncated
    if unflagged.any():
        logger.warning("%s: %d episodes end without a flag; treated as truncated", episodes.path, unflagged.sum())
        truncated |= unflagged
    return terminated, truncated


def _team_flags(episodes: Episodes, n_agents: int) -> tuple[np.ndarray, np.ndarray]:
    """Team flags ``(N,)``: terminated if all agents terminate; else truncated if any agent is."""
    terminations, truncations = (
        episodes.read_per_agent(key, n_agents, dtype=None) != 0 for key in ("terminations", "truncations")
    )
    both = (terminations & truncations).any(1)
    episodes.raise_if_any("terminations", both, both, "at most one of terminations and truncations at a step")
    terminated = terminations.all(1)
    ended = (terminations | truncations.any(1, keepdims=True)).all(1)
    return terminated, ended & ~terminated


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
