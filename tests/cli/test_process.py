"""Tests of ``main.py`` in a separate process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAIN = [sys.executable, str(ROOT / "main.py")]


def test_main_runs_from_any_folder(tmp_path: Path):
    done = subprocess.run(
        [*MAIN, "fit", "--config", "nothing"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: --config: found no file 'nothing'")
    assert done.stderr.count("\n") == 1


def test_output_has_no_messages_of_lightning(momalit, tmp_path: Path):
    arguments = ["fit", "--config", "tiny.yaml", "--trainer.max_epochs", "1", "--run_dir", "run"]
    done = subprocess.run([*MAIN, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "run finished; its directory is run" in done.stderr
    for message in ("GPU available", "Seed set to", "max_epochs", "Tip"):
        assert message not in done.stderr, done.stderr


@pytest.mark.slow
def test_run_resumes_exactly_after_a_signal(momalit, tmp_path: Path):
    arguments = ["fit", "--config", "tiny.yaml", "--trainer.max_epochs", "100"]
    assert momalit(*arguments, "--run_dir", "whole").code == 0
    for sent, status in ((signal.SIGINT, "interrupted"), (signal.SIGKILL, "running")):
        run = tmp_path / f"stopped-{sent.name}"
        process = subprocess.Popen([*MAIN, *arguments, "--run_dir", run.name], cwd=tmp_path, env=dict(os.environ))
        while not (run / "checkpoints" / "last.ckpt").is_file():
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(sent)
        assert process.wait(60) != 0
        assert json.loads((run / "run.json").read_text())["status"] == status
        assert momalit("fit", "--run_dir", run.name, "--ckpt_path", "last").code == 0
        assert (run / "metrics.csv").read_bytes() == (tmp_path / "whole" / "metrics.csv").read_bytes()


@pytest.mark.slow
def test_two_processes_use_one_run_directory(momalit, tmp_path: Path):
    arguments = ["--trainer.strategy", "ddp", "--trainer.devices", "2", "--run_dir", "run"]
    done = subprocess.run(
        [*MAIN, "fit", "--config", "tiny.yaml", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "It is recommended" not in done.stderr  # Lightning's warning about metrics without sync_dist
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "finished"
    assert json.loads((tmp_path / "run/results.json").read_text())["episodes"] == 3
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["run"]


def test_quiet_leaves_results_and_errors(momalit, tmp_path: Path):
    arguments = ["fit", "--config", "tiny.yaml", "--trainer.max_epochs", "1", "--run_dir", "run", "-q"]
    done = subprocess.run([*MAIN, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "last checkpoint" in done.stdout
    assert done.stderr == ""
    done = subprocess.run(
        [*MAIN, "-q", "collect", "nothing"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: data.dataset: found 'nothing'")
