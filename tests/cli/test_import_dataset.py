"""The command ``import``: converts a single-agent file into a dataset that a data module reads."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from datamodules import OfflineDataModule


@pytest.fixture
def recorded(momalit, tmp_path: Path) -> Path:
    """A file in D4RL's format with 60 steps of Reacher: an episode of 50 steps and an unfinished one."""
    rng = np.random.default_rng(0)
    states = rng.normal(size=(61, 10)).astype(np.float32)
    with h5py.File(tmp_path / "reacher.hdf5", "w") as file:
        file["observations"], file["next_observations"] = states[:-1], states[1:]
        file["actions"] = rng.uniform(-1, 1, (60, 2)).astype(np.float32)
        file["rewards"], file["terminals"] = rng.normal(size=60), np.zeros(60, bool)
        file["timeouts"] = np.arange(60) == 49
    return tmp_path / "reacher.hdf5"


@pytest.mark.parametrize("env", [("--env", "reacher"), ("--env=reacher",), ("--env.name", "reacher")])
def test_imported_dataset_can_be_loaded(env, recorded: Path, momalit):
    arguments = (
        "import",
        recorded.name,
        *env,
        "--env.observability",
        "leader",
        "--columns",
        "0:10",
        "--output",
        "my team",
    )
    outcome = momalit(*arguments)
    assert outcome.code == 0, outcome.stderr
    assert "60 transitions in 2 episodes, 0 of which terminated" in outcome.stderr
    assert outcome.stderr.splitlines()[-1] == "the dataset is in my team; train on it with --data.dataset 'my team'"
    data = OfflineDataModule("my team")
    assert data.spec.env == {"name": "reacher", "observability": "leader"}
    assert [len(agent.observes) for agent in data.spec.agents] == [8, 6]


MISTAKES = [
    ((), "source: missing, a value is required"),
    (("reacher.hdf5",), "env: missing, expected the team's task, e.g. --env ant"),
    (("reacher.hdf5", "--env", "reachr"), "did you mean reacher?"),
    (("reacher.hdf5", "--env", "reacher", "--env.observabilty", "full"), "env.observabilty: not a setting of reacher"),
    (("reacher.hdf5", "--env", "reacher", "--column", "0:10"), "--column: no such setting; did you mean columns?"),
    (("reacher.hdf5", "--env", "ant"), "reacher.hdf5: observations has 10 columns, expected 27 or 105 or 111 for ant"),
    (("gone.hdf5", "--env", "ant"), "source: found no file 'gone.hdf5', expected an HDF5 file"),
]


@pytest.mark.parametrize(("arguments", "expected"), MISTAKES, ids=[expected for _, expected in MISTAKES])
def test_error_messages_have_one_line(arguments, expected, recorded: Path, momalit, tmp_path: Path):
    outcome = momalit("import", *arguments)
    assert outcome.code == 2
    assert outcome.stderr.startswith("error: ")
    assert expected in outcome.stderr
    assert outcome.stderr.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.yaml", "reacher.hdf5"}


SOURCES = {
    "table.csv": "found it with a table, expected no more than --layout and --reward",
    "arrays.npz": "found it with arrays per agent, expected no more than --episode_length and --reward",
    "omiga.hdf5": "found it with one array for all agents, expected no more than --reward",
    "reacher.hdf5": "found it with a single agent's dataset, expected no more than --env and --columns",
}
UNUSED = [
    ("table.csv", "episode_length", "5"),
    ("table.csv", "env", "ant"),
    ("table.csv", "columns", "0:10"),
    ("arrays.npz", "layout", "layout.yaml"),
    ("arrays.npz", "env", "ant"),
    ("arrays.npz", "columns", "0:10"),
    ("omiga.hdf5", "episode_length", "5"),
    ("omiga.hdf5", "layout", "layout.yaml"),
    ("omiga.hdf5", "env", "ant"),
    ("reacher.hdf5", "episode_length", "5"),
    ("reacher.hdf5", "reward", "sum"),
]


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(("source", "option", "value"), UNUSED)
def test_options_that_a_source_cannot_use_are_refused(source: str, option: str, value: str, momalit, tmp_path: Path):
    with h5py.File(tmp_path / "omiga.hdf5", "w") as file:
        for key in "osard":
            file[key] = np.zeros((4, 2, 1))
    needed = {"reacher.hdf5": ("--env", "reacher"), "table.csv": ("--layout", "layout.yaml")}.get(source, ())
    outcome = momalit("import", source, f"--{option}", value, *needed, "--output", "out")
    assert outcome.code == 2
    assert f"error: --{option}: {SOURCES[source]}" in outcome.stderr
    assert outcome.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_help_has_usage(momalit, capsys):
    from momalit.cli import main

    assert main(["import", "--help"]) == 0
    text = capsys.readouterr().out
    assert "python main.py import DATASET --env TASK" in text
    assert "--columns FIRST:END" in text
