"""Training and evaluation where the dataset names no environment, or where it is not to be played."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from datamodules import OfflineDataModule
from datamodules.writer import write_dataset

FIT = ("fit", "--config", "tiny.yaml", "--run_dir", "run")


@pytest.fixture
def nameless(tmp_path: Path) -> str:
    """A dataset of the coordination game that names no environment."""
    data = OfflineDataModule("icg/unfavourable", transitions=1000)
    path = tmp_path / "nameless"
    write_dataset(path, "nameless/own-v0", replace(data.spec, env=None), data.train, {})
    return str(path)


def results(run: str = "run") -> dict:
    return json.loads(Path(run, "results.json").read_text())


def columns(path: Path) -> set[str]:
    with path.open(newline="") as file:
        return set(next(csv.reader(file)))


def test_a_dataset_that_names_no_environment_trains_and_evaluates_a_team(momalit, nameless):
    outcome = momalit(*FIT, "--data.dataset", nameless)
    assert outcome.code == 0
    found = results()
    assert found["env"] is None
    assert found["return_last"] is found["return_best"] is found["normalized_last"] is None
    low, high = found["estimate_last_interval"]
    assert low <= found["estimate_last"] <= high
    assert found["episodes"] == 0
    assert "eval/estimate" in columns(Path("run/metrics.csv"))
    assert "eval/return" not in columns(Path("run/metrics.csv"))
    assert {path.name for path in Path("run/checkpoints").iterdir()} == {"best.ckpt", "last.ckpt", "previous.ckpt"}
    for command in ("validate", "test"):
        assert momalit(command, "--run_dir", "run", "--ckpt_path", "best").code == 0
        metrics = json.loads(Path(f"run/{command}.json").read_text())["metrics"]
        names = ["estimate", "estimate_high", "estimate_low", "outside"]
        assert sorted(name.partition("/")[2] for name in metrics) == names
    assert momalit("predict", "--run_dir", "run", "--ckpt_path", "best").code == 0


def test_a_team_without_a_world_model_has_no_best_checkpoint_there(momalit, nameless):
    arguments = ("--data", "datamodules.OfflineDataModule", "--data.dataset", nameless, "--trainer.max_epochs", "1")
    assert momalit("fit", "--config", "baselines/bc.yaml", "--run_dir", "run", *arguments).code == 0
    assert results()["return_last"] is results()["estimate_last"] is None
    assert [path.name for path in Path("run/checkpoints").iterdir()] == ["last.ckpt"]


def test_the_environment_is_not_played_if_it_is_switched_off(momalit, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the environment was played")

    monkeypatch.setattr("callbacks.real_episodes.VectorTeamEnv", refuse)
    assert momalit(*FIT, "--evaluation.environment", "false").code == 0
    assert results()["env"] is not None
    assert results()["return_last"] is None
    assert results()["estimate_last"] is not None


def test_one_configuration_for_any_dataset_derives_its_settings(momalit, nameless, caplog):
    small = ("--config", "own.yaml", "--config", "overlays/quick.yaml", "--model.n_rollouts", "16")
    arguments = ("--data.dataset", nameless, "--evaluation.imagined_episodes", "4", "--world_model.width", "8")
    assert momalit("fit", *small, *arguments, "--world_model.max_epochs", "auto", "--run_dir", "run").code == 0
    derived = "horizon 10, reset_fraction 1, final_reset_fraction 1, initial_state_fraction 1, time_limit end"
    assert f"model: {derived}, adaptive_horizon false, for episodes of 10 steps" in caplog.messages
    assert "world model: 100 epochs, for about 10000 gradient steps" in caplog.messages


def test_a_study_without_environment_leaves_cross_play_out_and_says_so(momalit, nameless):
    data = f"{{data: datamodules.OfflineDataModule, data.dataset: {nameless}, trainer.max_epochs: 1}}"
    methods = f"{{BC: {{config: baselines/bc.yaml, options: {data}}}}}"
    Path("study.yaml").write_text(f"seeds: 2\ncross_play: [BC]\ntasks: {{own: }}\nmethods: {methods}\n")
    outcome = momalit("study", "study.yaml", "--output", "here")
    assert outcome.code == 0, outcome.stderr
    *_, warning, results = outcome.stderr.splitlines()
    assert warning.endswith("2 of 2 runs have no real returns, because their data name no environment, or"
                            " evaluation.environment is false")  # fmt: skip
    assert "compare them with: estimate" in results
    report = momalit("report", "here")
    assert report.code == 2
    assert "have no real returns" in report.stderr
