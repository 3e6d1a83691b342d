"""The command ``export``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

FIT = ("fit", "--config", "tiny.yaml", "--run_dir", "run")


def test_a_runs_team_is_exported_with_a_model_card(momalit, tmp_path: Path) -> None:
    assert momalit(*FIT).code == 0
    outcome = momalit("export", "run", "--output", "team", "--checkpoint", "best")
    assert outcome.code == 0, outcome.stderr
    names = {path.name for path in (tmp_path / "team").iterdir()}
    assert names == {
        "agent_0.onnx", "agent_0.pt2", "agent_1.onnx", "agent_1.pt2",
        "README.md", "policies.safetensors", "run_team.py", "team.json",
    }  # fmt: skip
    card = (tmp_path / "team/README.md").read_text()
    assert "- dataset: icg/unfavourable" in card
    assert "- mean return: " in card
    results = json.loads((tmp_path / "run/results.json").read_text())
    (tmp_path / "run/results.json").write_text(json.dumps({**results, "return_last": 1.0, "return_best": 9.0}))
    for name, found in (("last", "- mean return: 1\n"), ("best", "- mean return: 9\n")):
        arguments = (f"run/checkpoints/{name}.ckpt", "--output", name, "--formats", "torch")
        assert momalit("export", *arguments).code == 0
        assert found in (tmp_path / name / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "--output", "team"), "export: found no run/checkpoints/last.ckpt, expected a run's directory"),
        (("tiny.yaml", "--output", "team"), "checkpoint tiny.yaml: damaged or not a checkpoint"),
        (("run", "--output", "team", "--formats", "tflite"), "--formats: found 'tflite', expected some of onnx,torch"),
        (("run", "--output", "team", "--checkpoint", "first"), "--checkpoint: found 'first', expected last or best"),
        (("run",), "output: missing, a value is required"),
        (("tiny.yaml", "--output", "."), "--output: . exists, expected a new directory"),
    ],
)
def test_mistakes_are_named(arguments, message: str, momalit, tmp_path: Path) -> None:
    outcome = momalit("export", *arguments)
    assert outcome.code == 2
    assert message in outcome.stderr
    assert not (tmp_path / "team").exists()
