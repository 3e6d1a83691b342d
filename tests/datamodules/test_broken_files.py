"""Broken and hostile dataset files: each gives one line that names the file, and nothing outside it is read."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from datamodules.readers.team_dataset import read_dataset
from momalit.core.errors import UserError
from tests.datamodules.broken import BREAKS

DATA = Path("data/main_data.hdf5")
KEYS = ["rewards", "terminations", "truncations", "observations/state", "actions/agent_0"]


@pytest.fixture(scope="module")
def whole(icg) -> Path:
    """The directory of an intact dataset."""
    return Path(icg.path).parents[1]


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A copy without the digest of its contents, so that nothing but the readers' checks finds the fault."""
    target = tmp_path / "copy"
    shutil.copytree(whole, target)
    file = target / "data/metadata.json"
    metadata = json.loads(file.read_text())
    del metadata["momalit"]["provenance"]["sha256"]
    file.write_text(json.dumps(metadata))
    return target


def refused(path: Path) -> str:
    """The one line with which a dataset is refused."""
    with pytest.raises(UserError) as error:
        read_dataset(path)
    line = str(error.value)
    assert "\n" not in line
    assert str(path) in line
    return line


@pytest.mark.fault("array of a dataset broken or hostile", "22 ways, 5 arrays", "one line with file and key")
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_array_is_refused(name: str, key: str, copy: Path) -> None:
    with h5py.File(copy / DATA, "r+") as file:
        episode = file["episode_1"]
        array = episode[key][()]
        del episode[key]
        BREAKS[name](episode, key, array)
    line = refused(copy)
    # The rewards define an episode's length, which the other arrays then contradict.
    assert key.split("/")[0] in line or "is a link" in line or (key == "rewards" and "expected" in line)


@pytest.mark.fault("dataset cut short", "truncated at random lengths", "one line with the file", times=34)
def test_truncated_files_are_refused(copy: Path) -> None:
    whole, rng = (copy / DATA).read_bytes(), random.Random(0)
    for length in [0, 1, 8, 100, *(rng.randrange(len(whole)) for _ in range(30))]:
        (copy / DATA).write_bytes(whole[:length])
        refused(copy)


@pytest.mark.fault("bit flipped in a dataset", "one random bit", "refused, or harmless", times=60)
def test_flipped_bits_are_refused_or_change_nothing(whole: Path, tmp_path: Path) -> None:
    expected = read_dataset(whole).trajectories
    shutil.copytree(whole, tmp_path / "copy")
    intact, rng = (whole / DATA).read_bytes(), random.Random(0)
    n_refused = 0
    for _ in range(60):
        flipped = bytearray(intact)
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        (tmp_path / "copy" / DATA).write_bytes(bytes(flipped))
        try:
            found = read_dataset(tmp_path / "copy").trajectories
        except UserError:
            n_refused += 1
        else:
            assert torch.equal(found.state, expected.state)
            assert torch.equal(found.reward, expected.reward)
    assert n_refused > 10


@pytest.mark.fault("not an HDF5 file", "directory, fifo, dangling link, text, ...", "one line with the file")
@pytest.mark.parametrize("kind", ["directory", "fifo", "dangling link", "empty", "text", "NumPy archive"])
def test_what_is_no_hdf5_file_is_refused(kind: str, copy: Path) -> None:
    file = copy / DATA
    file.unlink()
    if kind == "directory":
        file.mkdir()
    elif kind == "fifo":
        os.mkfifo(file)
    elif kind == "dangling link":
        file.symlink_to("gone")
    elif kind == "NumPy archive":
        np.savez(file.with_suffix(".npz"), rewards=np.zeros(3))
        file.with_suffix(".npz").rename(file)
    else:
        file.write_text("" if kind == "empty" else "step,reward\n0,1\n")
    refused(copy)


@pytest.mark.fault("metadata broken", "no JSON, other JSON", "one line")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"momalit": 3}',
        '{"momalit": {"team": {}}}',
        '{"momalit": {}}',
        '{"momalit": []}',
        "\x00",
    ],
)
def test_broken_metadata_is_refused(text: str, copy: Path) -> None:
    (copy / "data/metadata.json").write_text(text)
    with pytest.raises(UserError) as error:
        read_dataset(copy)
    assert "\n" not in str(error.value)


def agent_with(**changes: Any) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    return lambda agents: [{**agents[0], **changes}, *agents[1:]]


@pytest.mark.fault("metadata contradicts the arrays", "sizes, agents, columns, types", "one line")
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("state_size", -1), ("state_size", 10**12), ("state_size", "4"), ("state_size", 3), ("state_size", 5),
        ("horizon", "long"), ("horizon", 0), ("discrete", "maybe"), ("discrete", False),
        ("sources", [["state"]]), ("sources", None), ("extra", 1),
        ("agents", []), ("agents", 3), ("agents", agent_with(name="agent_1")), ("agents", agent_with(name="../x")),
        ("agents", agent_with(observes=[7])), ("agents", agent_with(observes="all")),
        ("agents", agent_with(action_size=1)), ("agents", agent_with(action_size=10**9)),
        ("agents", agent_with(legal=[-1, 0])), ("agents", agent_with(low=[0.0, 0.0], high=[1.0, 1.0])),
        ("agents", agent_with(surplus=1)),
    ],
)  # fmt: skip
def test_metadata_that_contradicts_the_arrays_is_refused(key: str, value: Any, copy: Path) -> None:
    file = copy / "data/metadata.json"
    metadata = json.loads(file.read_text())
    team = metadata["momalit"]["team"]
    team[key] = value(team["agents"]) if callable(value) else value
    file.write_text(json.dumps(metadata))
    with pytest.raises(UserError) as error:
        read_dataset(copy)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("bounds", [([1.0], [-1.0]), ([0.0], [0.0]), ([-1e400], [1.0]), ([float("nan")], [1.0])])
def test_action_bounds_must_be_finite_and_in_order(bounds: tuple[list[float], list[float]], reacher) -> None:
    low, high = bounds
    agents = tuple(dataclasses.replace(agent, low=tuple(low), high=tuple(high)) for agent in reacher.spec.agents)
    with pytest.raises(UserError, match="expected finite lower bounds below the upper ones"):
        dataclasses.replace(reacher.spec, agents=agents)
