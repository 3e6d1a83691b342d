"""Reads datasets: Minari's HDF5 layout, into contiguous tensors, with every fault named."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from datamodules.readers.hdf5_episodes import Episodes
from datamodules.readers.spec_inference import action_starts, inferred_spec, state_columns, with_env
from datamodules.writer import DATA_FILE, METADATA_FILE, OURS
from momalit.core.errors import UserError
from momalit.core.team import STATE, TeamSpec
from momalit.core.trajectories import Trajectories

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dataset:
    """A dataset in memory.

    Args:
        path: its HDF5 file.
        spec: the team.
        trajectories: everything in it, in the order asked for.
        order: numbers, among the file's episodes, of the trajectories, in their order.
        provenance: where it comes from, as far as it says.
        sha256: digest of the contents (see ``contents_hash``).
    """

    path: Path
    spec: TeamSpec
    trajectories: Trajectories
    order: Sequence[int]
    provenance: dict[str, Any]
    sha256: str


def contents_hash(spec: TeamSpec, trajectories: Trajectories, order: Sequence[int] | None = None) -> str:
    """SHA-256, in hex, of the specification and of every number in the trajectories; of nothing else.

    Args:
        spec: the team.
        trajectories: what to digest.
        order: their numbers, in which order they are digested; None for that in which they lie.
    """
    digest = hashlib.sha256(json.dumps(spec.to_dict(), sort_keys=True).encode())
    number = np.arange(len(trajectories.lengths)) if order is None else np.argsort(order)
    lengths, first = trajectories.lengths.numpy()[number], trajectories.first.numpy()[number]
    places = {"state": (first + number, lengths + 1)}
    for key in ("state", "action", "reward", "terminated", "truncated"):
        array = np.ascontiguousarray(getattr(trajectories, key).numpy())
        digest.update(f"{key} {array.dtype} {array.shape}".encode())
        for begin, count in zip(*places.get(key, (first, lengths)), strict=True):
            digest.update(array[begin : begin + count].data)
    digest.update(f"lengths {lengths.dtype} {lengths.shape}".encode())
    digest.update(lengths.data)
    return digest.hexdigest()


def read_dataset(
    path: str | Path,
    env: Mapping[str, Any] | None = None,
    arrange: Callable[[int], Sequence[int]] | None = None,
) -> Dataset:
    """Reads and checks a dataset.

    A file without momalit's metadata may be any multi-agent Minari file: observations and actions keyed by agent. Its
    team is inferred from its columns and action spaces.

    Args:
        path: the HDF5 file or the Minari dataset's directory.
        env: ``name`` and settings of the environment that fits the dataset, or changed settings of the one it names.
        arrange: of the number of episodes E, gives the order in which they shall lie in memory, a permutation of 0 to
            E - 1; None for the order of their numbers. It has no influence on the digest.

    Raises:
        UserError: the first fault found: file, key, what is there and what was expected.
    """
    path = locate(Path(path))
    metadata = _metadata(path)
    ours = metadata.get(OURS)
    try:
        with h5py.File(path, "r") as file:
            episodes = Episodes(path, file, arrange)
            if ours is not None:
                spec = TeamSpec.from_dict(ours["team"])
                state = episodes.read(f"observations/{STATE}", extra=1, width=spec.state_size)
            else:
                spec, rows = inferred_spec(episodes, metadata)
                state = state_columns(spec, rows)
            action = _actions(episodes, spec, metadata if ours is None else None)
            reward = _mean(episodes.read("rewards"))
            terminated, truncated = _flags(episodes)
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path}: cannot be read as HDF5 ({_line(error)}), expected an intact file") from error
    lengths = torch.tensor(episodes.lengths)
    trajectories = Trajectories.from_lengths(
        torch.from_numpy(state), torch.from_numpy(action), torch.from_numpy(reward),
        torch.from_numpy(terminated), torch.from_numpy(truncated), lengths,
    )  # fmt: skip
    provenance = dict(ours["provenance"]) if ours is not None else {}
    digest = contents_hash(spec, trajectories, episodes.order)
    if provenance.get("sha256", digest) != digest:
        raise UserError(f"{path}: contents have SHA-256 {digest}, expected {provenance['sha256']} by its metadata")
    if env:
        spec = with_env(spec, env, path)
        digest = contents_hash(spec, trajectories, episodes.order)
    return Dataset(path, spec, trajectories, episodes.order, provenance, digest)


def locate(path: Path) -> Path:
    """The HDF5 file at a path or in a Minari dataset's directory.

    Raises:
        UserError: there is none.
    """
    path = path.expanduser()
    if path.is_dir():
        for candidate in (path / "data" / DATA_FILE, path / DATA_FILE):
            if candidate.is_file():
                return candidate
        raise UserError(f"{path}: found no data/{DATA_FILE} in it, expected a Minari dataset in HDF5 format")
    if not path.is_file():
        raise UserError(
            f"{path}: no such file, expected an HDF5 file or a Minari dataset directory; built-in datasets are made by"
            " name, e.g. data.dataset: reacher/expert-mix"
        )
    return path


def _metadata(path: Path) -> dict[str, Any]:
    file = path.parent / METADATA_FILE
    if not file.is_file():
        return {}
    try:
        metadata = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read as JSON ({_line(error)})") from error
    if not isinstance(metadata, dict) or not isinstance(metadata.get(OURS, {}), dict):
        raise UserError(f"{file}: found {type(metadata).__name__}, expected an object of metadata")
    lacks = [key for key in ("team", "provenance") if OURS in metadata and key not in metadata[OURS]]
    if lacks:
        raise UserError(f"{file}: {OURS}.{lacks[0]} is missing, expected it beside {OURS}'s other metadata")
    return metadata


def _actions(episodes: Episodes, spec: TeamSpec, metadata: dict[str, Any] | None) -> np.ndarray:
    """Padded joint actions ``(N, A, U)``."""
    starts = action_starts(spec, metadata)
    joint = np.zeros((episodes.n_steps, spec.n_agents, spec.action_size), np.float32)
    for i, agent in enumerate(spec.agents):
        key = f"actions/{agent.name}"
        if spec.discrete:
            choice = episodes.read(key, width=1, dtype=None)[:, 0]
            index = choice.astype(np.int64) - starts[agent.name]
            wrong = (index != choice - starts[agent.name]) | (index < 0) | (index >= agent.action_size)
            episodes.refuse(
                key, wrong, choice, f"a whole number from {starts[agent.name]} to"
                f" {starts[agent.name] + agent.action_size - 1}",
            )  # fmt: skip
            joint[np.arange(len(index)), i, index] = 1.0
        else:
            values = episodes.read(key, width=agent.action_size, out=joint[:, i, : agent.action_size])
            low, high = np.array(agent.low, np.float32), np.array(agent.high, np.float32)
            beyond = float(np.maximum(low - values.min(0), values.max(0) - high).max(initial=0.0))
            if beyond > 0:
                logger.warning("%s: %s goes %.3g beyond its bounds; clipped", episodes.path, key, beyond)
                values.clip(low, high, out=values)
    return joint


def _mean(reward: np.ndarray) -> np.ndarray:
    """The team's reward of rewards ``(N, 1)`` or ``(N, n_agents)``."""
    return reward[:, 0] if reward.shape[1] == 1 else reward.mean(1, dtype=np.float32)


def _flags(episodes: Episodes) -> tuple[np.ndarray, np.ndarray]:
    """Terminated and truncated ``(N,)``, checked: at most one of them, at an episode's last step only."""
    terminated, truncated = _ends(episodes)
    last = np.zeros(episodes.n_steps, bool)
    last[np.cumsum(episodes.lengths) - 1] = True
    for key, flag in (("terminations", terminated), ("truncations", truncated)):
        episodes.refuse(key, flag & ~last, flag, "ends at an episode's last step only")
    cut = last & ~terminated & ~truncated
    if cut.any():
        logger.warning("%s: %d episodes end without a flag; taken as truncated", episodes.path, cut.sum())
        truncated |= cut
    return terminated, truncated


def _ends(episodes: Episodes) -> tuple[np.ndarray, np.ndarray]:
    """Whether all agents terminated at a step ``(N,)``, and else whether all had ended there one way or the other."""
    terminations, truncations = (episodes.read(key, dtype=None) != 0 for key in ("terminations", "truncations"))
    both = (terminations & truncations).any(1)
    episodes.refuse("terminations", both, both, "at most one of terminations and truncations at a step")
    terminated = terminations.all(1)
    over = (terminations | truncations.any(1, keepdims=True)).all(1)
    return terminated, over & ~terminated


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
