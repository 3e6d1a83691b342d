"""No code runs from what a stranger made: checkpoints, run directories, study folders."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from momalit.cli import main

FIT = ("fit", "--config", "tiny.yaml")
CALLBACK = "from lightning.pytorch import Callback\nclass Mine(Callback):\n    pass\n"


class Evil:
    """Creates a file when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch was_here",)


def evil_checkpoint(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    torch.save({**content, "callbacks": Evil()}, path)


@pytest.mark.fault("checkpoint with code", "a pickle that runs a program, four options", "one line, nothing runs")
@pytest.mark.parametrize("where", ["resumed", "evaluated", "world model", "warm start"])
def test_a_checkpoint_runs_no_code(where: str, momalit, tmp_path: Path) -> None:
    assert momalit(*FIT, "--run_dir", "run").code == 0
    name = {"world model": "world_model/checkpoints/last.ckpt", "warm start": "warm_start/checkpoints/last.ckpt"}
    checkpoint = tmp_path / "run" / name.get(where, "checkpoints/last.ckpt")
    if not checkpoint.is_file():  # found in the cache
        checkpoint = tmp_path / "stage.ckpt"
        shutil.copyfile(tmp_path / "run/checkpoints/last.ckpt", checkpoint)
    evil_checkpoint(checkpoint)
    outcome = {
        "resumed": lambda: momalit("fit", "--run_dir", "run", "--ckpt_path", "last", "--trainer.max_epochs", "3"),
        "evaluated": lambda: momalit("test", "--run_dir", "run", "--ckpt_path", "last"),
        "world model": lambda: momalit(*FIT, "--model.world_model", str(checkpoint), "--run_dir", "other"),
        "warm start": lambda: momalit(*FIT, "--model.warm_start", str(checkpoint), "--run_dir", "other"),
    }[where]()
    assert outcome.code == 2
    assert "cannot be read, because it is damaged or not a checkpoint" in outcome.stderr
    assert not (tmp_path / "was_here").exists()


@pytest.mark.fault("run directory that names code", "class, function and environment", "one line, nothing is imported")
@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("trainer:\n  callbacks:\n    - class_path: evil.Mine\n", "evil.Mine"),
        ("model:\n  class_path: evil.Mine\n", "evil.Mine"),
        ("data:\n  init_args:\n    env: {name: 'evil:Mine'}\n", "evil:Mine"),
        ("data:\n  init_args:\n    dataset: evil:Mine/random\n", "evil:Mine"),
        ("trainer:\n  callbacks:\n    - class_path: lightning.pytorch.callbacks.LambdaCallback\n"
         "      init_args: {setup: os.system}\n", "os.system"),
    ],
)  # fmt: skip
def test_a_strangers_run_directory_runs_no_code(text: str, named: str, momalit, tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("open('was_here', 'w')\n" + CALLBACK)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text(text)
    (tmp_path / "run/run.json").write_text("{}")
    for command in ("fit", "test", "validate", "predict"):
        outcome = momalit(command, "--run_dir", "run", "--ckpt_path", "last")
        assert outcome.code == 2
        assert f"names {named}, which is code, and none of your commands wrote this file" in outcome.stderr
    assert not (tmp_path / "was_here").exists()


def test_ones_own_run_with_a_callback_resumes(momalit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine_here.py").write_text(CALLBACK)
    options = ("--trainer.callbacks", "mine_here.Mine", "--run_dir", "run")
    assert momalit(*FIT, *options).code == 0
    more = ("--ckpt_path", "last", "--trainer.max_epochs")
    assert momalit("fit", "--run_dir", "run", *more, "3").code == 0
    monkeypatch.setenv("MOMALIT_HOME", str(tmp_path / "of_someone_else"))
    outcome = momalit("fit", "--run_dir", "run", *more, "4")
    assert outcome.code == 2
    assert "trainer.callbacks.class_path names mine_here.Mine, which is code" in outcome.stderr
    assert momalit("fit", "--config", "run/config.yaml", "--run_dir", "run", *more, "4").code == 0


@pytest.mark.fault("study folder with code", "pickles in place of results, a YAML tag", "one line, nothing runs")
@pytest.mark.parametrize("name", ["results.csv", "study.yaml", "cross_play.csv"])
def test_a_strangers_study_folder_runs_no_code(name: str, momalit, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "results.csv").write_text("task,dataset,method,seed,return_last,return_best\ngame,one,BC,0,1,1\n")
    evil = b"!!python/object/apply:os.system ['touch was_here']\n" if name == "study.yaml" else pickle.dumps(Evil())
    (folder / name).write_bytes(evil)
    assert main(["report", str(folder)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert name in error
    assert not (tmp_path / "was_here").exists()


@pytest.mark.fault("checkpoint that names an environment", "a program in its place", "one line, nothing runs")
def test_the_environment_of_a_strangers_checkpoint_is_not_made(momalit, tmp_path: Path) -> None:
    for seed in ("0", "1"):
        assert momalit(*FIT, "--run_dir", seed, "--seed_everything", seed).code == 0
        path = tmp_path / seed / "checkpoints/last.ckpt"
        content = torch.load(path, weights_only=True)
        evil = {"name": "os:system", "command": "touch was_here"}
        content["momalit"]["spec"]["env"] = content["hyper_parameters"]["spec"]["env"] = evil
        torch.save(content, path)
    for command in (("cross-play", "0", "1"), ("estimate", "0", "--real", "2", "--episodes", "4")):
        outcome = momalit(*command)
        assert outcome.code == 2
        assert "a checkpoint names the environment os:system, which is code, but " in outcome.stderr
    assert not (tmp_path / "was_here").exists()


@pytest.mark.fault("run directory that names code", "cross-play of such runs", "one line, nothing is imported")
def test_cross_play_imports_no_class_of_a_stranger(momalit, tmp_path: Path) -> None:
    assert momalit(*FIT, "--run_dir", "run").code == 0
    (tmp_path / "evil.py").write_text("open('was_here', 'w')\n" + CALLBACK)
    config = tmp_path / "run/config.yaml"
    config.write_text(config.read_text().replace("momalit.MOMAPPOModule", "evil.Mine"))
    outcome = momalit("cross-play", "run", "run")
    assert outcome.code == 2
    assert "model.class_path names evil.Mine, which is code" in outcome.stderr
    assert not (tmp_path / "was_here").exists()
