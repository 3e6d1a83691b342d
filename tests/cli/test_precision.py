"""Complete runs with every value of ``trainer.precision`` that CPUs support."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from momalit.cli.trainer_defaults import SHARED_WITH_STAGES, require_devices
from momalit.core.errors import UserError

FIT = ("fit", "--config", "tiny.yaml")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "64-true"])
def test_offline_run_in_precision(precision, momalit, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MOMALIT_HOME", str(tmp_path / "home"))
    arguments = (*FIT, "--trainer.precision", precision, "--run_dir", "run")
    assert momalit(*arguments).code == 0
    assert momalit("fit", "--run_dir", "run", "--ckpt_path", "last", "--trainer.max_epochs", "3").code == 0
    assert momalit("test", "--run_dir", "run").code == 0
    assert momalit("predict", "--run_dir", "run").code == 0
    with (tmp_path / "run/metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    assert all(math.isfinite(float(value)) for row in rows for value in row.values() if value)
    wide = torch.float64 if precision == "64-true" else torch.float32
    for stage in (".", "world_model", "warm_start"):
        saved = torch.load(tmp_path / "run" / stage / "checkpoints/last.ckpt", weights_only=True)
        formats = {value.dtype for value in saved["state_dict"].values() if value.is_floating_point()}
        assert formats <= {wide, torch.float64}, stage


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_online_run_in_precision(precision, momalit, tmp_path: Path):
    arguments = ("fit", "--config", "mappo/icg.yaml", "--config", "overlays/quick.yaml", "--trainer.max_epochs", "1")
    small = ("--model.width", "8", "--model.gru_size", "8", "--model.n_rollouts", "4", "--trainer.precision", precision)
    assert momalit(*arguments, *small).code == 0


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_only_where_the_device_has_it(native, momalit, tmp_path: Path, monkeypatch, caplog):
    monkeypatch.setattr("momalit.training.trainer_checks.has_bfloat16", lambda _: native)
    config = (tmp_path / "tiny.yaml").read_text().replace("trainer:\n", "trainer:\n  precision: bf16-mixed\n")
    (tmp_path / "tiny.yaml").write_text(config)
    with caplog.at_level("INFO"):
        assert momalit(*FIT, "--run_dir", "run", "--trainer.max_epochs", "1").code == 0
    says = "trainer.precision: this CPU has no bfloat16 arithmetic; using 32-true instead of bf16-mixed"
    assert (says in caplog.messages) is not native
    used = "bf16-mixed" if native else "32-true"
    assert yaml.safe_load((tmp_path / "run/config.yaml").read_text())["trainer"]["precision"] == used


def test_the_command_line_insists_on_bfloat16(momalit, tmp_path: Path, monkeypatch, caplog):
    monkeypatch.setattr("momalit.training.trainer_checks.has_bfloat16", lambda _: False)
    assert momalit(*FIT, "--run_dir", "run", "--trainer.max_epochs", "1", "--trainer.precision", "bf16-mixed").code == 0
    assert "emulates bf16-mixed, many times slower than 32-true" in caplog.text
    assert yaml.safe_load((tmp_path / "run/config.yaml").read_text())["trainer"]["precision"] == "bf16-mixed"


class Mac:
    """A trainer on a machine with an Apple GPU."""

    precision = "32-true"

    def __init__(self, accelerator: str, **_: Any) -> None:
        self.strategy = SimpleNamespace(root_device=torch.device("cpu" if accelerator == "cpu" else "mps"))


def test_an_apple_gpu_is_not_used(monkeypatch):
    monkeypatch.setattr("momalit.cli.trainer_defaults.pl.Trainer", Mac)
    trainer = {**dict.fromkeys(SHARED_WITH_STAGES), "accelerator": "auto"}
    assert require_devices(trainer).type == trainer["accelerator"] == "cpu"
    trainer["accelerator"] = "gpu"
    with pytest.raises(UserError, match=r"trainer.accelerator: found mps, expected cpu"):
        require_devices(trainer)
