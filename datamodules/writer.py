"""Writes trajectories in Minari's HDF5 layout, with the team's specification and provenance in the metadata.

It uses h5py directly: for 2000 episodes Minari's own writer takes 6.6 s and this one 1.4 to 2.1 s.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from gymnasium import spaces
from minari.serialization import serialize_space

from momalit.core.errors import UserError
from momalit.core.files import new_directory
from momalit.core.team import STATE, TeamSpec
from momalit.core.trajectories import Trajectories

DATA_FILE, METADATA_FILE, MOMALIT_KEY = "main_data.hdf5", "metadata.json", "momalit"


def write_dataset(
    directory: Path, dataset_id: str, spec: TeamSpec, trajectories: Trajectories, provenance: dict[str, Any]
) -> None:
    """Writes ``directory/data/{main_data.hdf5,metadata.json}`` atomically.

    The observations hold each agent's columns and the state. The actions hold each agent's own action (integers if
    discrete).

    Args:
        directory: must not exist. If another process creates it in the meantime, that dataset is left in place.
        dataset_id: Minari's identifier, ``task/kind/slug-v0``.
        spec: the team's specification.
        trajectories: the data to write.
        provenance: JSON-serialisable values that describe the origin of the data.

    Raises:
        UserError: the directory cannot be written.
    """
    try:
        with new_directory(directory) as partial:
            data = partial / "data"
            data.mkdir()
            _write_episodes(data / DATA_FILE, spec, trajectories)
            observation_space, action_space = _spaces(spec)
            metadata = {
                "dataset_id": dataset_id,
                "minari_version": version("minari"),
                "data_format": "hdf5",
                "jpeg_encoding": False,
                "total_episodes": len(trajectories.lengths),
                "total_steps": len(trajectories),
                "dataset_size": round((data / DATA_FILE).stat().st_size / 1e6, 1),
                "observation_space": serialize_space(observation_space),
                "action_space": serialize_space(action_space),
                MOMALIT_KEY: {"team": spec.to_dict(), "provenance": provenance},
            }
            (data / METADATA_FILE).write_text(json.dumps(metadata, indent=1) + "\n")
    except OSError as error:
        raise UserError(f"dataset {directory}: cannot be written ({error.strerror or error})") from error


def _write_episodes(path: Path, spec: TeamSpec, trajectories: Trajectories) -> None:
    state, action = trajectories.state.numpy(), trajectories.action.numpy()
    arrays = {
        b"rewards": trajectories.reward.numpy(),
        b"terminations": trajectories.terminated.numpy(),
        b"truncations": trajectories.truncated.numpy(),
    }
    observations = {a.name.encode(): np.ascontiguousarray(state[:, list(a.observes)]) for a in spec.agents}
    observations[STATE.encode()] = state
    actions = {}
    for i, agent in enumerate(spec.agents):
        own = action[:, i, : agent.action_size]
        actions[agent.name.encode()] = own.argmax(-1) if agent.discrete else np.ascontiguousarray(own)
    with h5py.File(path, "w", libver="v110") as file:
        first = 0
        for number, length in enumerate(trajectories.lengths.tolist()):
            episode = h5py.Group(_group(file.id, f"episode_{number}".encode()))
            episode.attrs["id"] = number
            episode.attrs["total_steps"] = length
            steps, rows = slice(first, first + length), slice(first + number, first + number + length + 1)
            _write_arrays(episode.id, arrays, steps)
            _write_arrays(_group(episode.id, b"observations"), observations, rows)
            _write_arrays(_group(episode.id, b"actions"), actions, steps)
            first += length


def _group(parent: Any, name: bytes) -> Any:
    return h5py.h5g.create(parent, name, gcpl=_untimed_properties(h5py.h5p.GROUP_CREATE))


def _untimed_properties(object_class: Any) -> Any:
    """Creation properties without time stamps, which would make equal datasets differ in their bytes."""
    properties = h5py.h5p.create(object_class)
    properties.set_obj_track_times(False)
    return properties


def _write_arrays(group: Any, arrays: dict[bytes, np.ndarray], rows: slice) -> None:
    """Writes rows of arrays with low-level calls, because h5py's objects are slow for many small arrays."""
    properties = _untimed_properties(h5py.h5p.DATASET_CREATE)
    for name, array in arrays.items():
        values = np.ascontiguousarray(array[rows])
        dtype = h5py.h5t.py_create(values.dtype, logical=True)
        dataset = h5py.h5d.create(group, name, dtype, h5py.h5s.create_simple(values.shape), properties)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, values)


def _spaces(spec: TeamSpec) -> tuple[spaces.Dict, spaces.Dict]:
    observations: dict[str, spaces.Space[Any]] = {
        agent.name: spaces.Box(-np.inf, np.inf, (len(agent.observes),), np.float32) for agent in spec.agents
    }
    observations[STATE] = spaces.Box(-np.inf, np.inf, (spec.state_size,), np.float32)
    actions: dict[str, spaces.Space[Any]] = {
        agent.name: spaces.Discrete(agent.action_size)
        if agent.discrete
        else spaces.Box(np.array(agent.low, np.float32), np.array(agent.high, np.float32))
        for agent in spec.agents
    }
    return spaces.Dict(observations), spaces.Dict(actions)
