"""Signals stop a run after its epoch, and the resumed run equals an uninterrupted one."""

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


def fit(folder: Path, run: str, *arguments: str, **variables: str) -> subprocess.Popen[bytes]:
    """Starts a run in a separate process."""
    command = [*MAIN, "fit", "--config", "tiny.yaml", "--trainer.max_epochs", str(EPOCHS), "--run_dir", run, *arguments]
    with (folder / f"{run}.txt").open("ab") as output:
        return subprocess.Popen(command, cwd=folder, env={**os.environ, **variables}, stdout=output, stderr=output)


def wait_for(path: Path, *processes: subprocess.Popen[bytes]) -> None:
    for _ in range(2400):
        if path.is_file():
            return
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)
    raise AssertionError(f"{path} was not written within 120 s")


def status(run: Path) -> str:
    return str(json.loads((run / "run.json").read_text())["status"])


def finished_epochs(run: Path) -> int:
    return len((run / "metrics.csv").read_text().splitlines()) - 1


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def test_run_resumes_exactly_after_sigterm(momalit, tmp_path: Path):
    process = fit(tmp_path, "run")
    wait_for(tmp_path / "run/checkpoints/last.ckpt", process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    output = (tmp_path / "run.txt").read_text()
    assert "SIGTERM: training stops after epoch" in output
    assert "resume with: fit --run_dir run --ckpt_path last" in output
    assert "Traceback" not in output
    assert status(tmp_path / "run") == "interrupted"
    assert 0 < finished_epochs(tmp_path / "run") < EPOCHS
    assert momalit("fit", "--run_dir", "run", "--ckpt_path", "last").code == 0
    arguments = ("fit", "--config", "tiny.yaml", "--trainer.max_epochs", str(EPOCHS))
    assert momalit(*arguments, "--run_dir", "whole").code == 0
    assert (tmp_path / "run/metrics.csv").read_bytes() == (tmp_path / "whole/metrics.csv").read_bytes()


LONG = ("fit", "--config", "tiny.yaml", "--run_dir", "run", "--trainer.max_epochs", "9999")


@pytest.mark.parametrize(
    ("command", "begun", "last"),
    [
        (LONG, "training in", "resume with: fit --run_dir run"),
        (("collect", "reacher/expert-mix", "--output", "data"), "collecting", "interrupted"),
    ],
)
def test_an_interrupt_ends_in_one_line(command, begun, last, momalit, tmp_path: Path):
    heeding = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from momalit.cli import main"
    )
    program = [sys.executable, "-c", f"{heeding}; sys.exit(main(sys.argv[1:]))"]  # shells start jobs that ignore it
    own = {**os.environ, "MOMALIT_HOME": str(tmp_path / "home")}  # no world model of another test is reused
    with subprocess.Popen([*program, *command], cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=own) as process:
        assert process.stderr is not None
        while begun not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        try:
            output = process.communicate(timeout=120)[1]
        finally:
            process.kill()  # has no effect on one that has ended
    assert process.returncode == 130, output
    assert last in output.splitlines()[-1]
    assert "Traceback" not in output
    assert not (tmp_path / "data").exists()


SWALLOW = """
import os, signal
import lightning.pytorch as pl
class Library(pl.Callback):
    def on_fit_start(self, trainer, module):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(1000): pass
        except KeyboardInterrupt:
            pass
signal.signal(signal.SIGINT, signal.default_int_handler)
import sys
from momalit.cli import main
sys.modules["library"] = sys.modules["__main__"]
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.fault("an interrupt is swallowed", "by a library that catches everything", "training stops all the same")
def test_an_interrupt_that_a_library_swallows_still_stops(momalit, tmp_path: Path):
    command = [sys.executable, "-c", SWALLOW, *LONG, "--trainer.callbacks+=library.Library"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200)
    assert ended.returncode == 130, ended.stderr
    assert "resume with: fit --run_dir run" in ended.stderr.splitlines()[-1]
    assert "MOMAPPO: epoch" not in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("model", ["", "momalit.MAPPOModule"])
def test_two_processes_resume_exactly_after_a_signal(sent, model, momalit, tmp_path: Path):
    arguments = (*TWO, "--model.reset_fraction", "0.5")
    if model:
        (tmp_path / "online.yaml").write_text(
            "model:\n  class_path: momalit.MAPPOModule\n  init_args: {horizon: 7, n_rollouts: 4, width: 8, gru_size: 8,"
            " ppo_epochs: 1, n_minibatches: 2}\ndata:\n  class_path: datamodules.EnvironmentDataModule\n"
            "  init_args: {env: icg}\nworld_model: null\nwarm_start: null\ntrainer: {accelerator: cpu}\n"
        )
        arguments = ("--config", "online.yaml", *TWO)
    assert fit(tmp_path, "whole", *arguments).wait(200) == 0
    process = fit(tmp_path, "run", *arguments)
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
def test_slurm_job_is_requeued(momalit, tmp_path: Path):
    """Two tasks are started as by ``srun``. Only one of them receives the signal."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, script in (("scontrol", f'echo "$@" >> {tmp_path}/scontrol.txt'), ("srun", "exit 0")):
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    job = {"SLURM_JOB_ID": "4321", "SLURM_JOB_NAME": "team", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}
    job |= {"SLURM_NODEID": "0", "SLURM_NNODES": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    job["PATH"] = f"{tools}:{os.environ['PATH']}"
    tasks = [fit(tmp_path, "run", *TWO, SLURM_PROCID=rank, SLURM_LOCALID=rank, **job) for rank in ("0", "1")]
    wait_for(tmp_path / "run/checkpoints/last.ckpt", *tasks)
    tasks[1].send_signal(signal.SIGUSR1)
    assert [task.wait(60) for task in tasks] == [128 + signal.SIGUSR1] * 2
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 4321\n"
