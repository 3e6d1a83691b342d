"""A command that is killed at random moments, and given again each time, ends like one that was never interrupted."""

from __future__ import annotations

import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import time
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
    assert process.returncode not in (1, 2), errors
    return process.returncode if process.returncode == 0 else None


def _heed_interrupts() -> None:
    """A process that a shell starts in the background ignores SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def killed_and_whole(
    command: Command,
    folder: Path,
    kills: int,
    moments: tuple[float, float] = (0.1, 0.95),
    before: Command | None = None,
    made: str = "nothing",
) -> tuple[list[Path], Path]:
    """Runs a command until it is finished, with kills, as often as it takes to kill it so many times; and once without.

    Args:
        command: the command, which may be another one when it is given again.
        folder: where.
        kills: their number.
        moments: when a kill comes, at the earliest and at the latest, in units of the duration without kills.
        before: a command whose files the others start from.
        made: what the command makes and does not make again, even if it was killed right after that.

    Returns:
        the folders of the runs that were killed, and of the one that was not.
    """
    rng, done, survivors = random.Random(0), 0, []
    whole = folder / "whole"
    whole.mkdir()
    (whole / "tiny.yaml").write_text(TINY)
    (whole / "mine.yaml").write_text(STUDY)
    if before is not None:
        assert run(before, whole, None, rng) == 0
    shutil.copytree(whole, folder / "start")
    started = time.monotonic()
    assert run(command, whole, None, rng) == 0
    seconds = [moment * (time.monotonic() - started) for moment in moments]
    while done < kills:
        assert len(survivors) < kills  # or no kill comes in time
        survivor = folder / f"killed-{len(survivors)}"
        shutil.copytree(folder / "start", survivor)
        finished = False
        while done < kills and not finished:
            code = run(command, survivor, rng.uniform(*seconds), rng)
            done += code is None
            finished = code == 0 or (survivor / made).exists()
        assert finished or run(command, survivor, None, rng) == 0
        assert not list(survivor.glob("home/**/.partial-*.ckpt"))
        survivors.append(survivor)
    return survivors, whole


@pytest.mark.slow
@pytest.mark.fault(
    "`fit` killed at random moments, resumed", "SIGKILL, SIGTERM, SIGINT", "same weights and metrics", times=50
)
def test_any_number_of_kills_of_a_fit_changes_nothing(tmp_path: Path) -> None:
    survivors, whole = killed_and_whole(fit, tmp_path, 50, (0.04, 0.2))
    expected = weights(whole)
    for survivor in survivors:
        assert (survivor / "run/metrics.csv").read_bytes() == (whole / "run/metrics.csv").read_bytes()
        found = weights(survivor)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        assert not list((survivor / "run/checkpoints").glob(".partial-*"))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(folder / "run/checkpoints/last.ckpt", weights_only=True)["state_dict"])


@pytest.mark.slow
@pytest.mark.fault(
    "`collect` killed at random moments, repeated", "SIGKILL, SIGTERM, SIGINT", "the same dataset", times=15
)
def test_kills_of_collect_leave_no_half_dataset(tmp_path: Path) -> None:
    survivors, whole = killed_and_whole(collect, tmp_path, 15)
    assert {digest(next(path.glob("home/datasets/reacher/expert-mix/*-v0"))) for path in survivors} == {
        digest(next(whole.glob("home/datasets/reacher/expert-mix/*-v0")))
    }


def digest(dataset: Path) -> str:
    return read_dataset(dataset, may_import=True).sha256


@pytest.mark.slow
@pytest.mark.fault(
    "`study` killed at random moments, repeated", "SIGKILL, SIGTERM, SIGINT", "the same results", times=15
)
def test_kills_of_a_study_leave_its_results_alone(tmp_path: Path) -> None:
    survivors, whole = killed_and_whole(study, tmp_path, 15, (0.1, 0.5))
    assert len(results(whole)) == 6
    assert all(results(survivor) == results(whole) for survivor in survivors)


def results(folder: Path) -> list[dict[str, str]]:
    with (folder / "results/results.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "wall_clock_seconds"} for row in csv.DictReader(file)]


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

    survivors, whole = killed_and_whole(import_arrays, tmp_path, 15, before=source, made="data")
    assert {digest(survivor / "data") for survivor in survivors} == {digest(whole / "data")}


@pytest.mark.slow
@pytest.mark.fault("`export` killed at random moments, repeated", "SIGKILL, SIGTERM, SIGINT", "the same team", times=15)
def test_kills_of_export_leave_no_half_team(tmp_path: Path) -> None:
    def trained(folder: Path) -> list[str]:
        return ["fit", "--config", "tiny.yaml", "--run_dir", "run"]

    survivors, whole = killed_and_whole(export, tmp_path, 15, before=trained, made="team")
    expected = files(whole / "team")
    for survivor in survivors:
        found = files(survivor / "team")
        assert found.keys() == expected.keys()
        assert found["policies.safetensors"] == expected["policies.safetensors"]


@pytest.mark.slow
@pytest.mark.fault("`report` killed at random moments, repeated", "SIGKILL, SIGTERM, SIGINT", "the same page", times=15)
def test_kills_of_report_leave_no_half_page(tmp_path: Path) -> None:
    survivors, whole = killed_and_whole(report, tmp_path, 15, before=study)
    expected = files(whole / "results")
    for survivor in survivors:
        found = files(survivor / "results")
        assert {name for name in found if ".partial-" not in name} == expected.keys()
        assert found["report.html"] == expected["report.html"]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
