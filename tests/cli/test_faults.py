"""Faults on the way: two runs in one directory, damaged files, and what is left of killed runs."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from momalit.core.files import locked
from momalit.training.run_directory import RunDirectory

MAIN = [sys.executable, str(Path(__file__).resolve().parents[2] / "main.py")]
FIT = ("fit", "--config", "tiny.yaml")


def flip_a_bit(path: Path) -> None:
    """Flips a bit in the middle of a checkpoint's largest tensor."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        tensor = archive.read(max(archive.infolist(), key=lambda record: record.file_size))
    content[content.index(tensor) + len(tensor) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_a_directory_belongs_to_one_run_at_a_time(momalit, tmp_path: Path) -> None:
    with locked(tmp_path / "run/run"):
        outcome = momalit(*FIT, "--run_dir", "run")
    assert outcome.code == 2
    assert "run_dir: run is in use by another process" in outcome.stderr
    assert not RunDirectory(tmp_path / "run").record
    assert momalit(*FIT, "--run_dir", "run").code == 0


def test_two_runs_at_once_train_one_world_model(momalit, tmp_path: Path) -> None:
    environment = {**os.environ, "MOMALIT_HOME": str(tmp_path / "home")}
    runs = [
        subprocess.Popen([*MAIN, *FIT, "--run_dir", run], cwd=tmp_path, env=environment, stderr=subprocess.PIPE)
        for run in ("a", "b")
    ]
    output = [run.communicate()[1].decode() for run in runs]
    assert [run.returncode for run in runs] == [0, 0], output
    trained = [(tmp_path / run / "world_model").is_dir() for run in ("a", "b")]
    assert sorted(trained) == [False, True]
    assert (tmp_path / "a/metrics.csv").read_bytes() == (tmp_path / "b/metrics.csv").read_bytes()
    assert len(list((tmp_path / "home/world_models").glob("*.ckpt"))) == 1


def test_a_damaged_last_checkpoint_is_named_and_the_one_before_continues(momalit, tmp_path: Path) -> None:
    assert momalit(*FIT, "--run_dir", "run").code == 0
    whole = (tmp_path / "run/metrics.csv").read_bytes()
    flip_a_bit(tmp_path / "run/checkpoints/last.ckpt")
    resume = ("fit", "--run_dir", "run", "--ckpt_path")
    refused = momalit(*resume, "last")
    assert refused.code == 2
    assert "last.ckpt: damaged" in refused.stderr
    assert "previous and best can be read: --ckpt_path previous" in refused.stderr
    assert momalit(*resume, "previous").code == 0
    assert (tmp_path / "run/metrics.csv").read_bytes() == whole


def test_a_damaged_world_model_in_the_cache_is_trained_again(momalit, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MOMALIT_HOME", str(tmp_path / "home"))
    assert momalit(*FIT, "--run_dir", "a").code == 0
    (cached,) = (tmp_path / "home/world_models").glob("*.ckpt")
    flip_a_bit(cached)
    outcome = momalit(*FIT, "--run_dir", "b")
    assert outcome.code == 0
    assert "in the cache is damaged" in outcome.stderr
    assert (tmp_path / "a/metrics.csv").read_bytes() == (tmp_path / "b/metrics.csv").read_bytes()


@pytest.mark.parametrize(
    ("option", "title"),
    [("--world_model.lr", "WorldModel"), ("--model.critic_lr", "MOMAPPO")],
)
def test_a_learning_rate_that_is_too_high_is_named(option: str, title: str, momalit, tmp_path: Path) -> None:
    outcome = momalit(*FIT, "--run_dir", "run", option, "1e30")
    assert outcome.code == 1
    assert f"error: {title}: loss" in outcome.stderr
    assert f"{option.partition('.')[2]} 1e+30" in outcome.stderr
    assert RunDirectory(tmp_path / "run").record["status"] == "failed"


def test_the_checkpoint_before_numbers_went_wrong_is_kept_and_named(momalit, tmp_path: Path) -> None:
    assert momalit(*FIT, "--run_dir", "run").code == 0
    more = ("--ckpt_path", "last", "--trainer.max_epochs", "4", "--model.lr", "1e30")
    outcome = momalit("fit", "--run_dir", "run", *more)
    assert outcome.code == 1
    assert "the checkpoint of the epoch before is kept: run/checkpoints/last.ckpt" in outcome.stderr
    assert momalit("fit", "--run_dir", "run", "--ckpt_path", "last", "--trainer.max_epochs", "4").code == 0


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_run_goes_on_without_a_cache(momalit, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MOMALIT_HOME", str(tmp_path / "home"))
    assert momalit(*FIT, "--run_dir", "a").code == 0
    for cached in (tmp_path / "home").glob("*/*.ckpt"):
        cached.unlink()
    for folder in ("world_models", "warm_starts"):
        (tmp_path / "home" / folder).chmod(0o555)
    outcome = momalit(*FIT, "--run_dir", "b")
    assert outcome.code == 0
    assert "world model: not cached" in outcome.stderr
