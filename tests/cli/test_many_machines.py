"""Runs the examples of docs/many-machines.md on this machine."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from jsonargparse import Namespace

from momalit.cli import trainer_defaults
from momalit.training.run_directory import RunDirectory
from tests.tiny import make_data_and_module

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "many-machines.md").read_text(encoding="utf-8")
SMALL = ["--config", "tiny.yaml", "--trainer.accelerator", "cpu"]


def example(beginning: str) -> list[str]:
    """Returns the documented command with this beginning as a list of arguments, with a tiny configuration."""
    line = next(line for line in TEXT.replace("\\\n", " ").splitlines() if line.startswith(beginning))
    arguments = [str(ROOT / word) if word == "main.py" else word for word in shlex.split(line)]
    position = arguments.index("--config")
    return [*arguments[:position], *SMALL, *arguments[position + 2 :]]


def environment(**more: str) -> dict[str, str]:
    tools = Path(sys.executable).parent
    return {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", **more}


def test_settings_in_the_examples_exist(momalit):
    for arguments in (
        example("python main.py fit --config"),
        example("torchrun --standalone"),
        example("torchrun --nnodes"),
    ):
        arguments = arguments[arguments.index("fit") :]
        assert momalit(*arguments, "--print_config").code == 0


def test_external_launchers_need_a_run_directory(momalit, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_JOB_NAME", "bash")
    outcome = momalit("fit", "--config", "tiny.yaml", "--trainer.max_epochs", "0", "--print_config")
    assert outcome.code == 0
    monkeypatch.setenv("SLURM_JOB_NAME", "team")
    outcome = momalit("fit", "--config", "tiny.yaml")
    assert outcome.code == 2
    assert "run_dir: found none, expected --run_dir DIR when torchrun or srun starts the processes" in outcome.stderr


def test_stages_do_not_share_a_strategy_object(momalit_home, tmp_path: Path):
    _, module = make_data_and_module("warm_start")
    setting = Namespace(class_path="lightning.pytorch.strategies.DDPStrategy", init_args=Namespace(static_graph=True))
    settings = dict.fromkeys(trainer_defaults.SHARED_WITH_STAGES) | {
        "accelerator": "cpu",
        "devices": 2,
        "strategy": setting,
    }
    one, other = (
        trainer_defaults.stage_trainer(
            {**settings, "enable_progress_bar": False}, RunDirectory(tmp_path), "", module, 1
        )
        for _ in range(2)
    )
    assert type(one.strategy).__name__ == "DDPStrategy"
    assert one.strategy is not other.strategy


@pytest.mark.slow
def test_all_launchers_give_the_same_metrics(momalit, tmp_path: Path):
    output = tmp_path / "output.txt"

    def run(arguments: list[str], directory: str) -> subprocess.Popen[bytes]:
        arguments = [sys.executable if word == "python" else word for word in arguments]
        arguments[arguments.index("--run_dir") + 1] = directory
        with output.open("ab") as file:
            return subprocess.Popen(arguments, cwd=tmp_path, env=environment(), stdout=file, stderr=file)

    lightning = run(example("python main.py fit --config"), "lightning")
    assert lightning.wait(100) == 0, output.read_text()
    torchrun = run(example("torchrun --standalone"), "torchrun")
    assert torchrun.wait(100) == 0, output.read_text()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    changes = {"HOST": "127.0.0.1", "29500": port, "4": "1"}
    arguments = [changes.get(word, word) for word in example("torchrun --nnodes")]
    nodes = []
    for rank in ("0", "1"):
        arguments[arguments.index("--node-rank") + 1] = rank
        nodes.append(run(list(arguments), "nodes"))
    for node in nodes:
        assert node.wait(100) == 0, output.read_text()
    first, *others = [(tmp_path / name / "metrics.csv").read_bytes() for name in ("lightning", "torchrun", "nodes")]
    assert first.count(b"\n") == 3
    assert others == [first, first]


@pytest.mark.slow
def test_slurm_script_starts_and_resumes(momalit, tmp_path: Path):
    match = re.search(r"^```sh\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    assert match is not None
    text = match.group(1).replace("main.py", str(ROOT / "main.py")).replace("--config ant.yaml", shlex.join(SMALL))
    text = text.replace("--trainer.num_nodes 2 --trainer.devices 4", "--trainer.devices 2")
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tools / "srun").write_text(
        '#!/bin/sh\nfor i in 0 1; do SLURM_PROCID=$i SLURM_LOCALID=$i "$@" & pids="$pids $!"; done\n'
        "for pid in $pids; do wait $pid || exit 1; done\n"
    )
    for tool in tools.iterdir():
        tool.chmod(0o755)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    job = {"SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "team", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}
    job |= {"SLURM_NODEID": "0", "SLURM_NNODES": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    variables = environment(**job)
    variables["PATH"] = f"{tools}:{variables['PATH']}"
    for epochs in (2, 3):
        script = text.replace('--run_dir "$RUN"', f'--run_dir "$RUN" --trainer.max_epochs {epochs}')
        done = subprocess.run(
            ["bash", "-eu", "-c", "RESUME=\n" + script], cwd=tmp_path, env=variables, capture_output=True, text=True,
            timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert len((tmp_path / "runs/ant-many/metrics.csv").read_text().splitlines()) == epochs + 1
