"""Recordings with one array for all agents are imported exactly as recorded: OMIGA's files and OG-MARL's vaults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from datamodules import OfflineDataModule
from datamodules.builders.import_team_arrays import import_team_arrays
from momalit.cli import main
from momalit.core.errors import UserError

LENGTHS = (5, 3, 6)
AGENTS, CHOICES = 2, 3


def recorded(discrete: bool = False, lengths: tuple[int, ...] = LENGTHS) -> dict[str, np.ndarray]:
    """Observations, actions, rewards, ends, states and masks of two agents; rewards 1 and 3 in every step."""
    rng, n = np.random.default_rng(0), sum(lengths)
    ends = np.zeros(n, bool)
    ends[np.cumsum(lengths) - 1] = True
    legal = rng.random((n, AGENTS, CHOICES)) < 0.5
    actions: Any = rng.uniform(-1, 1, (n, AGENTS, 2)).astype(np.float32)
    if discrete:
        actions = rng.integers(CHOICES, size=(n, AGENTS))
        np.put_along_axis(legal, actions[..., None], True, 2)
    return {
        "observations": rng.normal(size=(n, AGENTS, 4)).astype(np.float32),
        "actions": actions,
        "rewards": np.tile(np.array([1.0, 3.0], np.float32), (n, 1)),
        "ends": ends,
        "state": rng.normal(size=(n, 5)).astype(np.float32),
        "legal": legal.astype(np.float32),
    }


def write_omiga(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    with h5py.File(path, "w") as file:
        file["o"], file["a"], file["r"] = arrays["observations"], arrays["actions"], arrays["rewards"]
        file["s"] = np.repeat(arrays["state"][:, None], AGENTS, 1)
        file["d"] = np.repeat(arrays["ends"][:, None], AGENTS, 1)
    return path


def write_vault(path: Path, arrays: dict[str, np.ndarray], truncated: np.ndarray | None = None) -> Path:
    tensorstore = pytest.importorskip("tensorstore")
    path.mkdir(parents=True)
    ends = np.repeat(arrays["ends"][:, None], AGENTS, 1)
    cut = np.zeros_like(ends) if truncated is None else np.repeat(truncated[:, None], AGENTS, 1)
    content = {name: arrays[name] for name in ("observations", "actions", "rewards")}
    content |= {"terminals": ends & ~cut, "truncations": cut, "infos.state": arrays["state"]}
    if arrays["actions"].ndim == 2:
        content["infos.legals"] = arrays["legal"]
    structure: dict[str, Any] = {}
    for name, array in content.items():
        store(tensorstore, path, f"{name}.", array[None], (1, 10**13, *array.shape[1:]))
        group, _, leaf = name.rpartition(".")
        (structure.setdefault(group, {}) if group else structure)[leaf] = str((1, 64, *array.shape[1:]))
    store(tensorstore, path, "vault_index", np.array([len(ends)], np.int32), (1,))
    (path / "metadata.json").write_text(json.dumps({"version": 1.2, "structure_shape": structure}))
    return path


def store(tensorstore: Any, path: Path, name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    spec = {
        "driver": "zarr",
        "kvstore": {"driver": "ocdbt", "base": f"file://{path}", "path": name},
        "metadata": {"compressor": {"id": "gzip", "level": 5}},
    }
    target = tensorstore.open(spec, dtype=array.dtype, shape=shape, create=True).result()
    target[tuple(slice(size) for size in array.shape)].write(array).result()


def imported(source: Path, folder: Path, reward: str = "mean") -> OfflineDataModule:
    return OfflineDataModule(
        str(import_team_arrays(source, reward, folder / "out")), validation_fraction=0, test_fraction=0
    )


@pytest.mark.parametrize("kind", ["omiga", "vault"])
def test_a_recording_is_imported_as_recorded(kind: str, tmp_path: Path) -> None:
    arrays = recorded()
    source = write_omiga(tmp_path / "a.hdf5", arrays) if kind == "omiga" else write_vault(tmp_path / "v/Good", arrays)
    data = imported(source, tmp_path)
    trajectories, spec = data.trajectories, data.spec
    assert trajectories.lengths.tolist() == list(LENGTHS)
    assert (trajectories.reward == 2).all()
    assert trajectories.terminated[trajectories.last].all()
    torch.testing.assert_close(trajectories.action, torch.from_numpy(arrays["actions"]), rtol=0, atol=0)
    states = trajectories.state[trajectories.row]
    for i, agent in enumerate(spec.agents):
        seen = states[:, list(agent.observes)]
        assert torch.equal(seen, torch.from_numpy(arrays["observations"][:, i]))
    assert torch.equal(states[:, :5], torch.from_numpy(arrays["state"]))
    # Nobody recorded what the last steps led to. They terminated, so that it is extrapolated.
    last = trajectories.state[trajectories.row[trajectories.last] + 1]
    before = states[trajectories.last - 1]
    torch.testing.assert_close(last, 2 * states[trajectories.last] - before)


def test_discrete_actions_and_their_masks(tmp_path: Path) -> None:
    arrays = recorded(discrete=True)
    data = imported(write_vault(tmp_path / "v", arrays), tmp_path)
    spec, trajectories = data.spec, data.trajectories
    assert spec.discrete
    assert spec.action_size == CHOICES
    assert torch.equal(trajectories.action.argmax(2), torch.from_numpy(arrays["actions"]))
    for i, agent in enumerate(spec.agents):
        mask = trajectories.state[:, list(agent.legal)]
        assert torch.equal(mask[trajectories.row], torch.from_numpy(arrays["legal"][:, i]))
        assert set(mask.unique().tolist()) == {0.0, 1.0}  # also where the observation is extrapolated


def test_time_limits_are_told_from_terminations(tmp_path: Path) -> None:
    arrays = recorded()
    cut = arrays["ends"] & (np.arange(len(arrays["ends"])) < 6)
    data = imported(write_vault(tmp_path / "v", arrays, cut), tmp_path)
    assert data.trajectories.lengths.tolist() == [4, 3, 6]  # the first one was cut, and its last step led nobody knows
    assert data.trajectories.terminated[data.trajectories.last].tolist() == [False, True, True]
    equal = write_omiga(tmp_path / "equal.hdf5", recorded(lengths=(4, 4, 4)))
    (tmp_path / "again").mkdir()
    data = imported(equal, tmp_path / "again")
    assert data.trajectories.lengths.tolist() == [3, 3, 3]
    assert not data.trajectories.terminated.any()


@pytest.mark.parametrize(("how", "expected"), [("mean", 2.0), ("sum", 4.0), ("agent_1", 3.0)])
def test_the_teams_reward(how: str, expected: float, tmp_path: Path) -> None:
    data = imported(write_omiga(tmp_path / "a.hdf5", recorded()), tmp_path, how)
    assert (data.trajectories.reward == expected).all()


def test_padding_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    arrays = recorded()
    arrays["observations"][:, 1, 2:] = -np.inf
    arrays["actions"][:, 0, 1] = np.nan
    with caplog.at_level("INFO"):
        data = imported(write_omiga(tmp_path / "a.hdf5", arrays), tmp_path)
    assert [len(agent.observes) for agent in data.spec.agents] == [4, 2]
    assert [agent.action_size for agent in data.spec.agents] == [1, 2]
    assert "2 columns of the observations of agent_1 are empty throughout and left out" in caplog.text


def changed(key: str, value: Any) -> dict[str, np.ndarray]:
    arrays = recorded()
    arrays[key] = value(arrays[key])
    return arrays


def nan_at(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array[2, 0, 1] = np.nan
    return array


@pytest.mark.parametrize(
    ("arrays", "reward", "message"),
    [
        (changed("observations", nan_at), "mean", r"observation of agent_0 in step 3 of the recording: found an empty"),
        (
            changed("observations", lambda a: a[:, :, None]),
            "mean",
            r"o has shape \(14, 2, 1, 4\), .* images need",
        ),
        (changed("actions", lambda a: a[:-1]), "mean", r"a has 13 steps, expected 14"),
        (changed("rewards", lambda a: np.tile(a, 3)), "mean", r"r has shape \(14, 6\), expected 2 agents"),
        (changed("actions", lambda a: a.astype("S4")), "mean", r"a has type .*S4, expected numbers"),
        (recorded(), "agent_2", r"--reward: found agent_2, expected mean, sum or one of a.hdf5's agent_0, agent_1"),
        (
            changed("observations", lambda a: np.full_like(a, np.nan)),
            "mean",
            r"all columns of the observations of agent_0",
        ),
    ],
)
def test_bad_files_are_refused_in_one_line(arrays: Any, reward: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        import_team_arrays(write_omiga(tmp_path / "a.hdf5", arrays), reward, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bad_vaults_are_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    good = write_vault(tmp_path / "3m.vlt/Good", recorded())
    assert main(["import", str(good), "--output", str(tmp_path / "ok")]) == 0
    assert main(["import", str(good.parent), "--output", str(tmp_path / "a")]) == 2
    assert "found the vaults Good, expected one of them" in capsys.readouterr().err
    structure = json.loads((good / "metadata.json").read_text())
    del structure["structure_shape"]["rewards"]
    (good / "metadata.json").write_text(json.dumps(structure))
    assert main(["import", str(good), "--output", str(tmp_path / "b")]) == 2
    assert "rewards is missing, found actions, infos.state, observations" in capsys.readouterr().err
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "metadata.json").write_text(
        json.dumps({"structure_shape": dict.fromkeys(("observations", "actions", "rewards", "terminals"), "(1, 2)")})
    )
    assert main(["import", str(empty), "--output", str(tmp_path / "c")]) == 2
    assert "vault_index cannot be read" in capsys.readouterr().err
    monkeypatch.setitem(__import__("sys").modules, "tensorstore", None)
    assert main(["import", str(empty), "--output", str(tmp_path / "d")]) == 2
    assert "expected the package tensorstore to read it: pip install momalit[vaults]" in capsys.readouterr().err
    assert not any((tmp_path / name).exists() for name in "abcd")


def test_integers_in_one_column_are_choices(tmp_path: Path) -> None:
    arrays = recorded(discrete=True)
    arrays["actions"] = arrays["actions"][..., None]
    data = imported(write_omiga(tmp_path / "a.hdf5", arrays), tmp_path)
    assert data.spec.discrete
    assert torch.equal(data.trajectories.action.argmax(2), torch.from_numpy(arrays["actions"][..., 0]))
