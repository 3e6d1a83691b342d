"""Arrays per agent, in a folder or an archive, are imported exactly as recorded."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from datamodules import OfflineDataModule
from datamodules.builders.import_arrays import import_arrays
from momalit.cli import main
from momalit.core.errors import UserError

LENGTHS = [6, 4, 5]


def recorded(flags: str = "none", lengths: list[int] = LENGTHS, state: bool = False) -> dict[str, np.ndarray]:
    """Arrays of two agents; the second one observes the first one's second column, too."""
    rng = np.random.default_rng(0)
    arrays: dict[str, list[np.ndarray]] = {}
    for length in lengths:
        rows = rng.normal(size=(length + 1, 4)).astype(np.float32)
        own = {"0": rows[:, :2], "1": rows[:, 1:]}
        for agent, observations in own.items():
            arrays.setdefault(f"obs_{agent}", []).append(observations[:-1])
            arrays.setdefault(f"next_obs_{agent}", []).append(observations[1:])
            arrays.setdefault(f"acs_{agent}", []).append(
                rng.uniform(-1, 1, (length, 1 + int(agent))).astype(np.float32)
            )
            arrays.setdefault(f"rews_{agent}", []).append(np.full(length, 1.0 + int(agent)))
            done = np.zeros(length)
            done[-1] = flags == "all" or (flags == "some" and length == 4)
            arrays.setdefault(f"dones_{agent}", []).append(done)
            if state:
                arrays.setdefault(f"states_{agent}", []).append(rows[:-1])
                arrays.setdefault(f"next_states_{agent}", []).append(rows[1:])
    return {name: np.concatenate(parts) for name, parts in arrays.items()}


def write(folder: Path, arrays: dict[str, np.ndarray], kind: str = "folder") -> Path:
    if kind == "npz":
        np.savez_compressed(folder / "spread.npz", **arrays)
        return folder / "spread.npz"
    (folder / "spread").mkdir(exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / "spread" / f"{name}.npy", array)
    return folder / "spread"


def imported(folder: Path, arrays: dict[str, np.ndarray], kind: str = "folder", length: int | None = None):
    return OfflineDataModule(str(import_arrays(write(folder, arrays, kind), length, folder / "out")))


@pytest.mark.parametrize("kind", ["folder", "npz"])
@pytest.mark.parametrize("flags", ["none", "some", "all"])
@pytest.mark.parametrize("state", [False, True])
def test_arrays_are_imported_as_recorded(kind: str, flags: str, state: bool, tmp_path: Path) -> None:
    arrays = recorded(flags, state=state)
    data = imported(tmp_path, arrays, kind)
    spec, trajectories = data.spec, data.trajectories
    assert spec.names == ("agent_0", "agent_1")
    assert [agent.observes for agent in spec.agents] == [(0, 1), (1, 2, 3)]
    assert trajectories.lengths.tolist() == LENGTHS
    rows = trajectories.row.numpy()
    whole = np.concatenate([arrays["obs_0"], arrays["obs_1"][:, 1:]], 1)
    after = np.concatenate([arrays["next_obs_0"], arrays["next_obs_1"][:, 1:]], 1)
    assert (trajectories.state[rows].numpy() == whole).all()
    assert (trajectories.state[rows + 1].numpy() == after).all()
    assert (trajectories.action[:, 1].numpy() == arrays["acs_1"]).all()
    assert (trajectories.reward.numpy() == 1.5).all()
    # A single flag, and flags after unequal numbers of steps: the former may be a time limit.
    assert trajectories.terminated.nonzero().flatten().tolist() == ([5, 9, 14] if flags == "all" else [])


def test_equally_long_flagged_episodes_are_time_limits_and_lengths_may_be_given(tmp_path: Path) -> None:
    for name, flags, length in (("a", "all", None), ("b", "none", 5)):
        (tmp_path / name).mkdir()
        data = imported(tmp_path / name, recorded(flags, [5, 5, 5]), length=length).trajectories
        assert data.lengths.tolist() == [5, 5, 5]
        assert not data.terminated.any()
        assert data.truncated.nonzero().flatten().tolist() == [4, 9, 14]


def changed(name: str, value: object) -> dict[str, np.ndarray]:
    arrays = recorded()
    if value is None:
        del arrays[name]
    else:
        arrays[name] = value(arrays[name]) if callable(value) else np.asarray(value)
    return arrays


def with_nan(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array[3] = np.nan
    return array


@pytest.mark.fault(
    "arrays per agent with a mistake", "missing, short, not numeric, pickled, NaN", "one line with the array"
)
@pytest.mark.parametrize("kind", ["folder", "npz"])
@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (changed("acs_1", None), r"acs_1 is missing, found"),
        (changed("obs_0", None), r"expected obs_0, obs_1, \.\.\."),
        (changed("rews_1", lambda a: a[:-1]), r"rews_1 has 14 rows, expected 15 as obs_0 has"),
        (changed("acs_0", lambda a: a.astype("U5")), r"acs_0 has type <U5, expected numbers"),
        (changed("acs_0", lambda a: a.astype(object)), r"acs_0 cannot be read .*(allow_pickle|Python objects)"),
        (changed("obs_0", with_nan), r"obs_0 has a value that is not finite in row 3"),
        (changed("next_obs_1", lambda a: a[:, :2]), r"agent_1 has 3 observation columns and 2 next ones"),
        (changed("dones_0", 0.0), r"dones_0 has shape \(\), expected a row for every step"),
    ],
)
def test_mistakes_are_named(kind: str, arrays: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    source = write(tmp_path, arrays, kind)
    with pytest.raises(UserError) as error:
        import_arrays(source, output=tmp_path / "out")
    assert re.search(message, str(error.value))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.fault("NPY or NPZ cut short", "truncated at random lengths", "one line with the file", times=40)
@pytest.mark.parametrize("kind", ["folder", "npz"])
def test_truncated_files_are_refused(kind: str, tmp_path: Path) -> None:
    source = write(tmp_path, recorded(), kind)
    file = source if kind == "npz" else source / "acs_1.npy"
    whole, rng = file.read_bytes(), np.random.default_rng(0)
    for length in rng.integers(len(whole), size=20):
        file.write_bytes(whole[:length])
        with pytest.raises(UserError) as error:
            import_arrays(source, output=tmp_path / "out")
        assert "\n" not in str(error.value)


def test_the_command_imports_arrays(tmp_path: Path) -> None:
    source = write(tmp_path, recorded())
    assert main(["import", str(source), "--output", str(tmp_path / "out")]) == 0
    assert main(["import", str(source), "--output", str(tmp_path / "b"), "--episode_length", "0"]) == 2


@pytest.mark.parametrize("both", [False, True])
def test_integers_in_one_column_are_choices(both: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    arrays = recorded()
    chosen = np.arange(len(arrays["acs_0"])) % 3
    for i in (0, 1) if both else (0,):
        arrays[f"acs_{i}"] = chosen[:, None]
    with caplog.at_level("INFO", "datamodules"):
        data = imported(tmp_path, arrays)
    assert [agent.discrete for agent in data.spec.agents] == [True, both]
    assert (data.trajectories.action[:, 0].argmax(1).numpy() == chosen).all()
    assert ("3 choices" if both else "choices of agent_0") in caplog.text
