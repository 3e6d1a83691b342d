"""A machine that is taken away: signals end a run after its epoch, and nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAIN = [sys.executable, str(ROOT / "main.py")]
EPOCHS = 60
TWO = ("--trainer.strategy", "ddp", "--trainer.devices", "2")


def fit(folder: Path, run: str, *words: str, **variables: str) -> subprocess.Popen[bytes]:
    """Starts a run in a process of its own."""
    command = [*MAIN, "fit", "--config", "tiny.yaml", "--trainer.max_epochs", str(EPOCHS), "--run_dir", run, *words]
    with (folder / f"{run}.txt").open("ab") as said:
        return subprocess.Popen(command, cwd=folder, env={**os.environ, **variables}, stdout=said, stderr=said)


def wait_for(path: Path, *processes: subprocess.Popen[bytes]) -> None:
    for _ in range(2400):
        if path.is_file():
            return
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)
    raise AssertionError(f"{path} was never written")


def status(run: Path) -> str:
    return str(json.loads((run / "run.json").read_text())["status"])


def epochs_done(run: Path) -> int:
    return len((run / "metrics.csv").read_text().splitlines()) - 1


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def test_sigterm_ends_a_run_after_its_epoch_and_nothing_is_lost(momalit, tmp_path: Path):
    process = fit(tmp_path, "run")
    wait_for(tmp_path / "run/checkpoints/last.ckpt", process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    said = (tmp_path / "run.txt").read_text()
    assert "SIGTERM: training ends after epoch" in said
    assert "go on with: fit --run_dir run --ckpt_path last" in said
    assert "Traceback" not in said
    assert status(tmp_path / "run") == "interrupted"
    assert 0 < epochs_done(tmp_path / "run") < EPOCHS
    assert momalit("fit", "--run_dir", "run", "--ckpt_path", "last").code == 0
    words = ("fit", "--config", "tiny.yaml", "--trainer.max_epochs", str(EPOCHS))
    assert momalit(*words, "--run_dir", "whole").code == 0
    assert (tmp_path / "run/metrics.csv").read_bytes() == (tmp_path / "whole/metrics.csv").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("model", ["", "momalit.MAPPOModule"])
def test_two_processes_lose_nothing_either(sent, model, momalit, tmp_path: Path):
    words = (*TWO, "--model.reset_fraction", "0.5")
    if model:
        (tmp_path / "online.yaml").write_text(
            "model:\n  class_path: momalit.MAPPOModule\n  init_args: {horizon: 7, n_rollouts: 4, width: 8, gru_size: 8,"
            " ppo_epochs: 1, n_minibatches: 2}\ndata:\n  class_path: datamodules.EnvironmentDataModule\n"
            "  init_args: {env: icg}\nworld_model: null\nwarm_start: null\ntrainer: {accelerator: cpu}\n"
        )
        words = ("--config", "online.yaml", *TWO)
    assert fit(tmp_path, "whole", *words).wait(200) == 0
    process = fit(tmp_path, "run", *words)
    wait_for(tmp_path / "run/checkpoints/last.ckpt", process)
    time.sleep(0.3)
    process.send_signal(sent)
    assert process.wait(60) != 0
    assert status(tmp_path / "run") == ("running" if sent == signal.SIGKILL else "interrupted")
    done = subprocess.run(
        [*MAIN, "fit", "--run_dir", "run", "--ckpt_path", "last"], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert status(tmp_path / "run") == "finished"
    assert (tmp_path / "run/metrics.csv").read_bytes() == (tmp_path / "whole/metrics.csv").read_bytes()


@pytest.mark.slow
def test_a_job_of_slurm_is_put_into_the_queue_again(momalit, tmp_path: Path):
    """Two tasks, started as ``srun`` does; the signal reaches one of them."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, does in (("scontrol", f'echo "$@" >> {tmp_path}/asked.txt'), ("srun", "exit 0")):
        (tools / name).write_text(f"#!/bin/sh\n{does}\n")
        (tools / name).chmod(0o755)
    job = {"SLURM_JOB_ID": "4321", "SLURM_JOB_NAME": "team", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}
    job |= {"SLURM_NODEID": "0", "SLURM_NNODES": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    job["PATH"] = f"{tools}:{os.environ['PATH']}"
    tasks = [fit(tmp_path, "run", *TWO, SLURM_PROCID=rank, SLURM_LOCALID=rank, **job) for rank in ("0", "1")]
    wait_for(tmp_path / "run/checkpoints/last.ckpt", *tasks)
    tasks[1].send_signal(signal.SIGUSR1)
    assert [task.wait(60) for task in tasks] == [128 + signal.SIGUSR1] * 2
    assert (tmp_path / "asked.txt").read_text() == "requeue 4321\n"
