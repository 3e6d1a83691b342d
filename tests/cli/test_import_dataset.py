"""The command ``import``, from a file of one agent to a dataset that a data module takes."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from datamodules import OfflineDataModule


@pytest.fixture
def recorded(momalit, tmp_path: Path) -> Path:
    """Sixty steps of a Reacher in D4RL's layout, an episode of 50 and one that goes on."""
    rng = np.random.default_rng(0)
    states = rng.normal(size=(61, 10)).astype(np.float32)
    with h5py.File(tmp_path / "reacher.hdf5", "w") as file:
        file["observations"], file["next_observations"] = states[:-1], states[1:]
        file["actions"] = rng.uniform(-1, 1, (60, 2)).astype(np.float32)
        file["rewards"], file["terminals"] = rng.normal(size=60), np.zeros(60, bool)
        file["timeouts"] = np.arange(60) == 49
    return tmp_path / "reacher.hdf5"


@pytest.mark.parametrize("env", [("--env", "reacher"), ("--env=reacher",), ("--env.name", "reacher")])
def test_what_is_imported_can_be_used(env, recorded: Path, momalit):
    words = ("import", recorded.name, *env, "--env.observability", "leader", "--columns", "0:10", "--output", "my team")
    outcome = momalit(*words)
    assert outcome.code == 0, outcome.said
    assert "60 transitions in 2 episodes, 0 of which terminated" in outcome.said
    assert outcome.said.splitlines()[-1] == "the dataset is in my team; train on it with --data.dataset 'my team'"
    data = OfflineDataModule("my team")
    assert data.spec.env == {"name": "reacher", "observability": "leader"}
    assert [len(agent.observes) for agent in data.spec.agents] == [8, 6]


MISTAKES = [
    ((), "source: missing, a value is required"),
    (("reacher.hdf5",), "env: missing, expected the team's task, e.g. --env ant"),
    (("reacher.hdf5", "--env", "reachr"), "did you mean reacher?"),
    (("reacher.hdf5", "--env", "reacher", "--env.observabilty", "full"), "env.observabilty: no setting of reacher"),
    (("reacher.hdf5", "--env", "reacher", "--column", "0:10"), "--column: no such setting; did you mean columns?"),
    (("reacher.hdf5", "--env", "ant"), "reacher.hdf5: observations has 10 columns, expected 27 or 105 or 111 for ant"),
    (("gone.hdf5", "--env", "ant"), "source: found no file 'gone.hdf5', expected an HDF5 file"),
]


@pytest.mark.parametrize(("words", "expected"), MISTAKES, ids=[expected for _, expected in MISTAKES])
def test_mistakes_cost_one_line(words, expected, recorded: Path, momalit, tmp_path: Path):
    outcome = momalit("import", *words)
    assert outcome.code == 2
    assert outcome.said.startswith("error: ")
    assert expected in outcome.said
    assert outcome.said.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.yaml", "reacher.hdf5"}


def test_help(momalit, capsys):
    from momalit.cli import main

    assert main(["import", "--help"]) == 0
    text = capsys.readouterr().out
    assert "python main.py import SOURCE --env TASK" in text
    assert "--columns FIRST:END" in text
