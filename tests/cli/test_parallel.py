"""A run that uses several cores equals one that does not, also when it is stopped in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from momalit.training.forks import can_fork
from tests.cli.test_preemption import wait_for

pytestmark = pytest.mark.skipif(not can_fork(), reason="this machine or test run cannot copy a process")

FIT = ("fit", "--config", "tiny.yaml", "--world_model.n_members", "5", "--world_model.max_epochs", "60")
FIT_OF_TWO = (*FIT, "--world_model.patience", "60", "--run_dir", "run")
TWO_CORES = """\
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
import momalit.policies.critic_beside, momalit.training.forks, momalit.world_model.member_share
momalit.training.forks.cores = lambda: 2
momalit.world_model.member_share.WORTHWHILE_OPERATIONS = momalit.policies.critic_beside.WORTHWHILE_SECONDS = 0
from momalit.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def two_cores(monkeypatch):
    """Makes even small networks worth two processes."""
    monkeypatch.setattr("momalit.training.forks.cores", lambda: 2)
    monkeypatch.setattr("momalit.world_model.member_share.WORTHWHILE_OPERATIONS", 0)
    monkeypatch.setattr("momalit.policies.critic_beside.WORTHWHILE_SECONDS", 0)


def metrics_of(run: Path) -> list[bytes]:
    """The metrics of the policies and of both stages, which differ if anything does."""
    return [(run / stage / "metrics.csv").read_bytes() for stage in ("", "world_model", "warm_start")]


def test_parallel_changes_nothing(momalit, two_cores, tmp_path, monkeypatch):
    results = []
    for parallel in ("auto", "off"):
        monkeypatch.setenv("MOMALIT_HOME", str(tmp_path / parallel))
        arguments = ("fit", "--config", "tiny.yaml", "--world_model.n_members", "5", "--world_model.max_epochs", "8")
        outcome = momalit(*arguments, "--parallel", parallel, "--run_dir", f"run_{parallel}")
        assert outcome.code == 0
        assert ("warm start: training beside" in outcome.stderr) == (parallel == "auto")
        assert ("warm start: training in" in outcome.stderr) == (parallel == "off")
        results.append(json.loads((tmp_path / f"run_{parallel}/results.json").read_text()))
        del results[-1]["wall_clock_seconds"]
    assert results[0] == results[1]
    assert metrics_of(tmp_path / "run_auto") == metrics_of(tmp_path / "run_off")
    stages = [json.loads((tmp_path / f"run_{p}/run.json").read_text())["stages"] for p in ("auto", "off")]
    assert [{stage: found["from"] for stage, found in run.items()} for run in stages] == [
        {"world_model": "training", "warm_start": "training"}
    ] * 2
    assert "parallel" not in (tmp_path / "run_auto/config.yaml").read_text()


@pytest.mark.parametrize(
    ("optimizer", "precision"),
    [("adamw", "32-true"), ("adamw", "bf16-mixed"), ("muon", "32-true"), ("muon", "bf16-mixed")],
)
def test_so_is_a_world_model_alone(optimizer, precision, momalit, two_cores, tmp_path, monkeypatch):
    monkeypatch.setenv("MOMALIT_HOME", str(tmp_path / "home"))
    small = ("--model.n_members", "5", "--model.n_elites", "3", "--model.width", "8", "--trainer.max_epochs", "4")
    small = (*small, "--model.optimizer", optimizer, "--trainer.precision", precision, "--model.n_blocks", "2")
    found = []
    for parallel in ("auto", "off"):
        run = tmp_path / f"run_{parallel}"
        sizes = (*small, "--data.transitions", "1000", "--run_dir", str(run))
        assert momalit("fit", "--config", "world_model/icg.yaml", *sizes, "--parallel", parallel).code == 0
        checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=False)
        assert len(checkpoint["processes"]) == (2 if parallel == "auto" else 1)
        weights = [value.numpy().tobytes() for value in checkpoint["state_dict"].values()]
        found.append((weights, (run / "metrics.csv").read_bytes(), json.loads((run / "results.json").read_text())))
    assert found[0] == found[1]


def test_another_value_is_refused(momalit, tmp_path):
    outcome = momalit("fit", "--config", "tiny.yaml", "--parallel", "2")
    assert (outcome.code, outcome.stderr) == (2, "error: parallel: found '2', expected auto or off\n")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_world_model_goes_on_in_one_process(number, momalit, tmp_path, monkeypatch):
    command = [sys.executable, "-c", TWO_CORES, *FIT_OF_TWO]
    with (tmp_path / "run.txt").open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**os.environ, "MOMALIT_HOME": str(tmp_path / "home")},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    wait_for(tmp_path / "run/world_model/checkpoints/last.ckpt", process)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # Ctrl-C reaches all processes of the terminal
    else:
        process.send_signal(number)
    assert process.wait(60) == 128 + number
    text = (tmp_path / "run.txt").read_text()
    assert "resume with: fit --run_dir run" in text
    assert "Traceback" not in text
    with pytest.raises(ProcessLookupError):  # no process is left
        os.killpg(process.pid, 0)
    monkeypatch.setenv("MOMALIT_HOME", str(tmp_path / "home"))
    assert momalit("fit", "--run_dir", "run", "--ckpt_path", "last").code == 0
    monkeypatch.setenv("MOMALIT_HOME", str(tmp_path / "other"))
    assert momalit(*FIT_OF_TWO[:-1], "whole").code == 0
    found, expected = metrics_of(tmp_path / "run"), metrics_of(tmp_path / "whole")
    assert found[0] == expected[0]  # the policies', which depend on every bit of the world model
    if number == signal.SIGTERM:  # Ctrl-C may come between an epoch's checkpoint and the end of its row
        assert found == expected
