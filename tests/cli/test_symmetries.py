"""Training with the symmetries of a task, and the mistakes that one can make with them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from datamodules import OfflineDataModule
from datamodules.writer import write_dataset

FIT = ("fit", "--config", "tiny.yaml", "--run_dir", "run")


def test_results_say_so_and_the_world_model_is_another_one(momalit) -> None:
    assert momalit(*FIT[:3], "--run_dir", "plain").code == 0
    outcome = momalit(*FIT, "--data.symmetries", "declared")
    assert outcome.code == 0
    assert "data.symmetries: declared, which amount to 4 maps" in outcome.stderr
    assert "world model: training" in outcome.stderr
    assert json.loads(Path("run/results.json").read_text())["symmetries"] == 4
    assert "one of the task's 4 symmetries" in Path("run/report.html").read_text().replace("&#x27;", "'")
    assert json.loads(Path("plain/results.json").read_text())["symmetries"] is None
    stages = [json.loads(Path(run, "run.json").read_text())["stages"] for run in ("plain", "run")]
    assert stages[0]["world_model"]["key"] != stages[1]["world_model"]["key"]
    assert stages[0]["warm_start"]["key"] == stages[1]["warm_start"]["key"]
    assert momalit("test", "--run_dir", "run").code == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("yes", "data.symmetries: found 'yes', expected declared or module:name"),
        ("math:pi", "data.symmetries: found 'math:pi', expected the name of a function or of a list of functions"),
        ("math:sqrt", "data.symmetries: sqrt: failed with TypeError"),
    ],
)
def test_names_that_are_none(momalit, name: str, message: str) -> None:
    outcome = momalit(*FIT, "--data.symmetries", name)
    assert outcome.code == 2
    assert message in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_a_dataset_without_an_environment_has_none_declared(momalit, tmp_path: Path) -> None:
    data = OfflineDataModule("icg/unfavourable", transitions=1000)
    write_dataset(tmp_path / "nameless", "nameless/own-v0", replace(data.spec, env=None), data.train, {})
    arguments = ("--data.dataset", str(tmp_path / "nameless"), "--data.symmetries")
    outcome = momalit(*FIT, *arguments, "declared")
    assert outcome.code == 2
    assert "the dataset has no environment that could declare them" in outcome.stderr
    (tmp_path / "mine.py").write_text(
        "def swapped(observations, actions):\n"
        "    turned = {agent: seen[[2, 3, 0, 1]] for agent, seen in observations.items()}\n"
        "    return turned, dict(zip(actions, list(actions.values())[::-1]))\n"
    )
    assert momalit(*FIT, *arguments, "mine:swapped").code == 0
    assert json.loads(Path("run/results.json").read_text())["symmetries"] == 2
