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


def test_help_has_usage(momalit, capsys):
    from momalit.cli import main

    assert main(["import", "--help"]) == 0
    text = capsys.readouterr().out
    assert "python main.py import DATASET --env TASK" in text
    assert "--columns FIRST:END" in text
