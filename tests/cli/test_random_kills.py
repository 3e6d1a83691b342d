"""A run that is killed at random moments, and resumed each time, ends like one that was never interrupted."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from momalit.training.run_directory import RunDirectory

MAIN = [sys.executable, str(Path(__file__).resolve().parents[2] / "main.py")]
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
EPOCHS = 400


def command(run: str) -> list[str]:
    """What a user types next: ``fit``, or how to continue it once the run has a record."""
    if RunDirectory(Path(run)).record:
        return [*MAIN, "fit", "--run_dir", run, "--ckpt_path", "last"]
    longer = ["--trainer.max_epochs", str(EPOCHS), "--world_model.max_epochs", "30", "--warm_start.max_epochs", "20"]
    return [*MAIN, "fit", "--config", "tiny.yaml", "--run_dir", run, *longer]


def environment(folder: Path, home: str) -> dict[str, str]:
    return {**os.environ, "MOMALIT_HOME": str(folder / home), "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
@pytest.mark.fault(
    "killed at random moments of all stages, then resumed",
    "SIGKILL, SIGTERM, SIGINT",
    "same weights and metrics",
    times=50,
)
@pytest.mark.parametrize("kills", [50])
def test_any_number_of_kills_changes_nothing(kills: int, momalit, tmp_path: Path) -> None:
    rng = random.Random(0)
    for _ in range(kills):
        with subprocess.Popen(
            command("killed"), cwd=tmp_path, env=environment(tmp_path, "home"), stderr=subprocess.PIPE
        ) as process:
            try:
                process.wait(rng.uniform(2, 14))
            except subprocess.TimeoutExpired:
                process.send_signal(rng.choice(SIGNALS))
            errors = process.communicate()[1].decode()
        assert "error:" not in errors, errors
        if process.returncode == 0:
            break
    for run, home in (("killed", "home"), ("whole", "another_home")):
        if RunDirectory(tmp_path / run).record.get("status") != "finished":
            subprocess.run(command(run), cwd=tmp_path, env=environment(tmp_path, home), check=True)
    assert (tmp_path / "killed/metrics.csv").read_bytes() == (tmp_path / "whole/metrics.csv").read_bytes()
    killed, whole = (
        torch.load(tmp_path / run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for run in ("killed", "whole")
    )
    assert killed.keys() == whole.keys()
    assert all(torch.equal(killed[name], whole[name]) for name in whole)
    leftovers = [path for path in (tmp_path / "killed").rglob(".partial-*") if path.parent.name == "checkpoints"]
    assert not leftovers
