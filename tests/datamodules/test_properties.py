"""Whatever a file contains, it is read exactly as recorded or refused in one line."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from datamodules.builders.import_arrays import import_arrays
from datamodules.builders.import_table import import_table
from datamodules.readers.team_dataset import SMALLEST_SPREAD, read_dataset
from momalit.core.errors import UserError

DATA = Path("data/main_data.hdf5")
finite = st.floats(-1e6, 1e6, width=32)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
few = settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@st.composite
def recordings(draw: st.DrawFn) -> tuple[list[int], list[dict[str, np.ndarray]]]:
    """Episodes' lengths, and of each agent what it observed before and after its actions, and did."""
    lengths = draw(st.lists(st.integers(2, 6), min_size=2, max_size=4))
    rows, agents = sum(lengths), []
    for _ in range(draw(st.integers(1, 3))):
        observations, actions = draw(st.integers(1, 3)), draw(st.integers(1, 2))
        agents.append(
            {
                "obs": draw(arrays(np.float32, (rows, observations), elements=finite)),
                "acs": draw(arrays(np.float32, (rows, actions), elements=finite)),
                "rews": draw(arrays(np.float32, rows, elements=finite)),
            }
        )
    return lengths, agents


def refused_or(read: Any) -> Any:
    """What ``read`` returns, or None if it refuses in one line."""
    try:
        return read()
    except UserError as error:
        line = str(error)
        assert "\n" not in line
        return None


@pytest.mark.fault("odd but valid numbers, sizes and lengths", "random recordings as NPY", "read to the bit", times=60)
@few
@given(recordings(), st.booleans())
def test_arrays_are_read_to_the_bit(recorded: tuple[list[int], list[dict[str, np.ndarray]]], archive: bool) -> None:
    lengths, agents = recorded
    done = np.zeros(sum(lengths))
    done[np.cumsum(lengths) - 1] = 1
    files = {f"{name}_{i}": array for i, agent in enumerate(agents) for name, array in agent.items()}
    files |= {f"dones_{i}": done for i in range(len(agents))}
    files |= {f"next_obs_{i}": np.roll(agent["obs"], -1, 0) for i, agent in enumerate(agents)}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / ("all.npz" if archive else "all")
        if archive:
            np.savez(source, **files)
        else:
            source.mkdir()
            for name, array in files.items():
                np.save(source / f"{name}.npy", array)
        path = refused_or(lambda: import_arrays(source, None, Path(folder) / "out"))
        assert path is not None or constant(agents) or barely_rewarded(agents)
        if path is None:
            return
        data = read_dataset(path)
    found = data.trajectories
    rows = found.row.numpy()
    assert found.lengths.tolist() == lengths
    for i, (agent, spec) in enumerate(zip(agents, data.spec.agents, strict=True)):
        seen = found.state[rows][:, list(spec.observes)].numpy()
        assert np.array_equal(seen, agent["obs"])
        assert np.array_equal(found.action[:, i, : agent["acs"].shape[1]].numpy(), agent["acs"])
    rewards = np.mean([agent["rews"] for agent in agents], 0, dtype=np.float64)
    np.testing.assert_allclose(found.reward.numpy(), rewards, rtol=1e-6, atol=1e-30)


def constant(agents: list[dict[str, np.ndarray]]) -> bool:
    """Whether an agent does the same at every step, which leaves no range of actions."""
    return any((agent["acs"] == agent["acs"][0]).all(0).any() for agent in agents)


def barely_rewarded(agents: list[dict[str, np.ndarray]]) -> bool:
    """Whether the team's rewards differ, but by less than a dataset's may."""
    team = np.mean([agent["rews"].astype(np.float64) for agent in agents], 0)
    return 0 < team.std() < 2 * SMALLEST_SPREAD


@pytest.mark.fault("bytes of a dataset overwritten, inserted, deleted", "random edits", "refused, or read", times=60)
@few
@given(st.data())
def test_edited_bytes_do_no_harm(icg: Any, data: st.DataObject) -> None:
    whole = Path(icg.path).parents[1]
    content = (whole / DATA).read_bytes()
    start = data.draw(st.integers(0, len(content) - 1))
    stop = min(start + data.draw(st.integers(0, 64)), len(content))
    edited = content[:start] + data.draw(st.binary(max_size=64)) + content[stop:]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(whole, copy)
        (copy / DATA).write_bytes(edited)
        found = refused_or(lambda: read_dataset(copy))  # the digest in the metadata is that of the whole file
    if found is not None:
        assert np.array_equal(found.trajectories.state.numpy(), icg.trajectories.state.numpy())


@pytest.mark.fault("metadata of a dataset replaced", "random JSON at random keys", "refused, or read", times=60)
@few
@given(st.data())
def test_random_metadata_is_refused_or_harmless(icg: Any, data: st.DataObject) -> None:
    whole = Path(icg.path).parents[1]
    metadata = json.loads((whole / "data/metadata.json").read_text())
    place = metadata
    while True:
        key = data.draw(st.sampled_from(sorted(place)))
        if isinstance(place[key], dict) and place[key] and data.draw(st.booleans()):
            place = place[key]
            continue
        place[key] = data.draw(json_values)
        break
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(whole, copy)
        (copy / "data/metadata.json").write_text(json.dumps(metadata))
        found = refused_or(lambda: read_dataset(copy))
    if found is not None:
        assert len(found.trajectories.reward) == len(icg.trajectories.reward)


@pytest.mark.fault(
    "layout of a table is anything", "random YAML, and random changes of a layout", "refused, or read", times=60
)
@few
@given(st.one_of(json_values, st.tuples(st.sampled_from(["episode", "step", "reward", "agents"]), json_values)))
def test_random_layouts_are_refused_or_harmless(change: Any) -> None:
    layout: Any = {
        "episode": "e",
        "step": "t",
        "reward": "r",
        "agents": {"a": {"observations": ["x"], "actions": ["u"]}},
    }
    layout = {**layout, change[0]: change[1]} if isinstance(change, tuple) else change
    table = pa.table(
        {"e": [0, 0, 1, 1], "t": [0, 1, 0, 1], "r": [0.1, 0.2, 0.3, 0.4], "x": [1.0, 2, 3, 4], "u": [0.0, 1, 0, 1]}
    )
    with tempfile.TemporaryDirectory() as folder:
        path, file, output = (Path(folder) / name for name in ("table.parquet", "layout.yaml", "out"))
        pyarrow.parquet.write_table(table, path)
        file.write_text(yaml.safe_dump(layout, allow_unicode=True), encoding="utf-8")
        imported = refused_or(lambda: import_table(path, file, output))
        assert output.exists() == (imported is not None)


@pytest.mark.fault("text of a table is anything", "random characters in a CSV file", "refused, or read", times=60)
@few
@given(st.integers(0, 60), st.binary(max_size=20), st.integers(0, 20))
def test_random_text_in_a_table_does_no_harm(start: int, inserted: bytes, deleted: int) -> None:
    content = b"e,t,r,x,u\n" + b"".join(b"%d,%d,0.5,%d,%d\n" % (i // 4, i % 4, i, i % 3) for i in range(12))
    layout = {"episode": "e", "step": "t", "reward": "r", "agents": {"a": {"observations": ["x"], "actions": ["u"]}}}
    with tempfile.TemporaryDirectory() as folder:
        path, file, output = (Path(folder) / name for name in ("table.csv", "layout.yaml", "out"))
        path.write_bytes(content[:start] + inserted + content[start + deleted :])
        file.write_text(yaml.safe_dump(layout))
        imported = refused_or(lambda: import_table(path, file, output))
        assert output.exists() == (imported is not None)
        if imported is not None:
            read_dataset(imported)
