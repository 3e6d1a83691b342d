"""A command that is killed at random moments, and given again each time, ends like one that was never interrupted."""

from __future__ import annotations

import csv
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import read_dataset
from momalit.training.run_directory import RunDirectory
from tests.cli.conftest import TINY

MAIN = [sys.executable, str(Path(__file__).resolve().parents[2] / "main.py")]
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
STUDY = "seeds: 3\ntasks:\n  game: {config: tiny.yaml}\nmethods:\n  MOMA-PPO: {}\n  BC: {config: baselines/bc.yaml}\n"
Command = Callable[[Path], Sequence[str]]


def fit(folder: Path) -> list[str]:
    """What a user types next: ``fit``, or how to continue it once the run has a record."""
    if RunDirectory(folder / "run").record:
        return ["fit", "--run_dir", "run", "--ckpt_path", "last"]
    longer = ["--trainer.max_epochs", "1500", "--world_model.max_epochs", "100", "--warm_start.max_epochs", "60"]
    return ["fit", "--config", "tiny.yaml", "--run_dir", "run", *longer]


def collect(folder: Path) -> list[str]:
    return ["collect", "reacher/expert-mix", "--transitions", "20000"]


def study(folder: Path) -> list[str]:
    return ["study", "mine.yaml", "--output", "results", "--jobs", "1"]


def import_arrays(folder: Path) -> list[str]:
    return ["import", "recorded", "--output", "data"]


def export(folder: Path) -> list[str]:
    return ["export", "run", "--output", "team"]


def report(folder: Path) -> list[str]:
    return ["report", "results"]


def run(command: Command, folder: Path, timeout: float | None, rng: random.Random) -> int | None:
    """Runs a command; after ``timeout`` seconds it is sent a signal. Returns its exit code, or None if it was ended."""
    environment = {**os.environ, "MOMALIT_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*MAIN, *command(folder)], cwd=folder, env=environment, stderr=subprocess.PIPE, preexec_fn=_heed_interrupts
    ) as process:
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.send_signal(rng.choice(SIGNALS))
        errors = process.communicate()[1].decode()
    assert "error:" not in errors, errors
    return process.returncode if process.returncode in (0, 1, 2) else None


def _heed_interrupts() -> None:
    """A process that a shell starts in the background ignores SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def killed_and_whole(
    command: Command, folder: Path, kills: int, seconds: tuple[float, float], before: Command | None = None
) -> tuple[Path, Path, int]:
    """Runs a command twice, once with kills, after another one in a folder that both continue with.

    Returns:
        both folders and the number of kills before it was finished.
    """
    rng = random.Random(0)
    (folder / "killed").mkdir()
    (folder / "killed/tiny.yaml").write_text(TINY)
    (folder / "killed/mine.yaml").write_text(STUDY)
    if before is not None:
        assert run(before, folder / "killed", None, rng) == 0
    shutil.copytree(folder / "killed", folder / "whole")
    done = 0
    while done < kills and run(command, folder / "killed", rng.uniform(*seconds), rng) is None:
        done += 1
    assert run(command, folder / "killed", None, rng) == 0 if done == kills else True
    assert run(command, folder / "whole", None, rng) == 0
    assert not list((folder / "killed").glob("home/**/.partial-*.ckpt"))
    return folder / "killed", folder / "whole", done


@pytest.mark.slow
@pytest.mark.fault(
    "`fit` killed at random moments, resumed", "SIGKILL, SIGTERM, SIGINT", "same weights and metrics", times=50
)
def test_any_number_of_kills_of_a_fit_changes_nothing(tmp_path: Path) -> None:
    killed, whole, kills = killed_and_whole(fit, tmp_path, 50, (3, 14))
    assert kills == 50
    assert (killed / "run/metrics.csv").read_bytes() == (whole / "run/metrics.csv").read_bytes()
    one, other = (
        torch.load(folder / "run/checkpoints/last.ckpt", weights_only=True)["state_dict"] for folder in (killed, whole)
    )
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in other)
    assert not list((killed / "run/checkpoints").glob(".partial-*"))


@pytest.mark.slow
@pytest.mark.fault(
    "`collect` killed at random moments, repeated", "SIGKILL, SIGTERM, SIGINT", "the same dataset", times=15
)
def test_kills_of_collect_leave_no_half_dataset(tmp_path: Path) -> None:
    killed, whole, kills = killed_and_whole(collect, tmp_path, 15, (3, 7))
    assert kills > 5
    datasets = [next(folder.glob("home/datasets/reacher/expert-mix/*-v0")) for folder in (killed, whole)]
    one, other = (read_dataset(path, may_import=True) for path in datasets)
    assert one.sha256 == other.sha256


@pytest.mark.slow
@pytest.mark.fault(
    "`study` killed at random moments, repeated", "SIGKILL, SIGTERM, SIGINT", "the same results", times=15
)
def test_kills_of_a_study_leave_its_results_alone(tmp_path: Path) -> None:
    killed, whole, kills = killed_and_whole(study, tmp_path, 15, (5, 20))
    assert kills > 3
    one, other = (list(csv.DictReader((folder / "results/results.csv").open())) for folder in (killed, whole))
    for row in (*one, *other):
        del row["wall_clock_seconds"]
    assert len(other) == 6
    assert one == other


def recorded(folder: Path) -> None:
    """Arrays of two agents: a million numbers."""
    (folder / "recorded").mkdir(parents=True)
    rng, done = np.random.default_rng(0), np.arange(1, 50_001) % 25 == 0
    for agent in range(2):
        seen = rng.normal(size=(50_000, 8)).astype(np.float32)
        np.save(folder / f"recorded/obs_{agent}.npy", seen)
        np.save(folder / f"recorded/next_obs_{agent}.npy", np.roll(seen, -1, 0))
        np.save(folder / f"recorded/acs_{agent}.npy", rng.normal(size=(50_000, 3)).astype(np.float32))
        np.save(folder / f"recorded/rews_{agent}.npy", rng.normal(size=50_000))
        np.save(folder / f"recorded/dones_{agent}.npy", done)


@pytest.mark.slow
@pytest.mark.fault(
    "`import` killed at random moments, repeated", "SIGKILL, SIGTERM, SIGINT", "the same dataset", times=15
)
def test_kills_of_import_leave_no_half_dataset(tmp_path: Path) -> None:
    def source(folder: Path) -> list[str]:
        recorded(folder)
        return ["--version"]

    killed, whole, kills = killed_and_whole(import_arrays, tmp_path, 15, (0.5, 4), source)
    assert kills > 3
    one, other = (read_dataset(folder / "data") for folder in (killed, whole))
    assert one.sha256 == other.sha256


@pytest.mark.slow
@pytest.mark.fault("`export` killed at random moments, repeated", "SIGKILL, SIGTERM, SIGINT", "the same team", times=15)
def test_kills_of_export_leave_no_half_team(tmp_path: Path) -> None:
    def trained(folder: Path) -> list[str]:
        return ["fit", "--config", "tiny.yaml", "--run_dir", "run"]

    killed, whole, kills = killed_and_whole(export, tmp_path, 15, (1, 8), trained)
    assert kills > 3
    assert files(killed / "team").keys() == files(whole / "team").keys()
    assert files(killed / "team")["policies.safetensors"] == files(whole / "team")["policies.safetensors"]


@pytest.mark.slow
@pytest.mark.fault("`report` killed at random moments, repeated", "SIGKILL, SIGTERM, SIGINT", "the same page", times=15)
def test_kills_of_report_leave_no_half_page(tmp_path: Path) -> None:
    killed, whole, kills = killed_and_whole(report, tmp_path, 15, (0.2, 2), study)
    assert kills > 3
    one, other = files(killed / "results"), files(whole / "results")
    assert {name for name in one if ".partial-" not in name} == other.keys()
    assert one["report.html"] == other["report.html"]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
