"""The command ``estimate``."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

FIT = ("fit", "--config", "tiny.yaml", "--run_dir", "run")
BASELINE = ("fit", "--config", "baselines/bc.yaml", "--trainer.max_epochs", "1", "--run_dir", "bc")
DATA = ("--data", "datamodules.OfflineDataModule", "--data.dataset", "icg/unfavourable", "--data.transitions", "1000")


def test_teams_are_estimated_from_data_and_compared_with_reality(momalit, tmp_path: Path) -> None:
    assert momalit(*FIT).code == 0
    outcome = momalit("estimate", "run", "--checkpoint", "both", "--episodes", "8", "--real", "4", "--output", "out")
    assert outcome.code == 0, outcome.stderr
    assert "Estimated returns" in outcome.stderr
    with (tmp_path / "out/estimates.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["checkpoint"] for row in rows] == ["last", "best"]
    assert all(float(row["low"]) <= float(row["estimate"]) <= float(row["high"]) for row in rows)
    assert all(0 <= float(row["outside"]) <= 1 and 0 <= float(row["real"]) <= 10 for row in rows)
    # A baseline's team is judged in another run's world model.
    assert momalit(*BASELINE, *DATA).code == 0
    model = json.loads((tmp_path / "run/run.json").read_text())["stages"]["world_model"]["path"]
    outcome = momalit("estimate", "bc", "--world_model", model, "--episodes", "8", "--real", "1")
    assert outcome.code == 0, outcome.stderr
    assert "was trained on other data" not in outcome.stderr
    assert momalit(*BASELINE[:-1], "other", *DATA, "--data.split_seed", "1").code == 0
    outcome = momalit("estimate", "other", "--world_model", model, "--episodes", "8")
    assert f"{model} was trained on other data than the training split of " in outcome.stderr
    outcome = momalit("estimate", "bc")
    assert outcome.code == 2
    assert "BCModule has no world model, expected --world_model FILE" in outcome.stderr


@pytest.mark.parametrize("deterministic", ["true", "false"])
def test_the_estimate_is_that_of_the_fit(deterministic: str, momalit, tmp_path: Path) -> None:
    sizes = ("--evaluation.imagined_episodes", "8", "--evaluation.test_episodes", "4")
    assert momalit(*FIT, *sizes, "--evaluation.deterministic", deterministic).code == 0
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert momalit("estimate", "run", "--episodes", "8", "--real", "4", "--output", "out").code == 0
    with (tmp_path / "out/estimates.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert float(row["estimate"]) == pytest.approx(results["estimate_last"], rel=1e-4)
    assert float(row["real"]) == pytest.approx(results["return_last"])


def test_a_run_without_a_dataset_is_refused(momalit, tmp_path: Path) -> None:
    small = ("--trainer.max_epochs", "1", "--model.width", "8", "--model.gru_size", "4", "--trainer.callbacks", "null")
    assert momalit("fit", "--config", "mappo/icg.yaml", "--run_dir", "online", *small).code == 0
    outcome = momalit("estimate", "online", "--world_model", "nothing.ckpt")
    assert outcome.code == 2
    assert "online was trained without a dataset, expected a run on one" in outcome.stderr


@pytest.mark.parametrize(
    ("data", "key"),
    [
        (None, "class_path"),
        ({"init_args": {}}, "class_path"),
        ({"class_path": "datamodules.OfflineDataModule"}, "init_args.dataset"),
        ({"class_path": "datamodules.OfflineDataModule", "init_args": {}}, "init_args.dataset"),
    ],
)
def test_a_run_whose_configuration_lacks_its_data_is_refused(data, key: str, momalit, tmp_path: Path) -> None:
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "run/checkpoints/last.ckpt").touch()
    (tmp_path / "run/run.json").write_text("{}")
    (tmp_path / "run/config.yaml").write_text(json.dumps({} if data is None else {"data": data}))
    outcome = momalit("estimate", "run")
    assert outcome.code == 2
    assert f"run/config.yaml: data.{key}: missing, expected" in outcome.stderr
    assert outcome.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing",), "estimate: found no nothing/checkpoints/last.ckpt, expected a run's directory or a checkpoint"),
        (("tiny.yaml",), "estimate: tiny.yaml is in no run's directory, expected one, which names the dataset"),
        (("run", "--checkpoint", "first"), "--checkpoint: found 'first', expected one of last, best, both"),
        (("run", "--episodes", "0"), "--episodes: found 0, expected at least 1"),
        (("run", "--output", "tiny.yaml"), "--output: tiny.yaml is a file, expected a directory"),
        (("run", "--real", "-1"), "--real: found -1, expected at least 0"),
    ],
)
def test_mistakes_are_named(arguments, message: str, momalit) -> None:
    outcome = momalit("estimate", *arguments)
    assert outcome.code == 2
    assert message in outcome.stderr
