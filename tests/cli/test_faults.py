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


@pytest.mark.fault("two runs in one directory", "a second `fit`", "one line, exit code 2, nothing written")
def test_a_directory_belongs_to_one_run_at_a_time(momalit, tmp_path: Path) -> None:
    with locked(tmp_path / "run/run"):
        outcome = momalit(*FIT, "--run_dir", "run")
    assert outcome.code == 2
    assert "run_dir: run is in use by another process" in outcome.stderr
    assert not RunDirectory(tmp_path / "run").record
    assert momalit(*FIT, "--run_dir", "run").code == 0


@pytest.mark.fault(
    "two runs need the same dataset and world model", "two `fit` at once", "the second waits, one is made"
)
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


@pytest.mark.fault(
    "`last.ckpt` of a run damaged", "one bit", "refused by name; `--ckpt_path previous` ends with the same metrics"
)
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


@pytest.mark.fault("world model in the cache damaged", "one bit", "trained again, with a warning")
def test_a_damaged_world_model_in_the_cache_is_trained_again(momalit, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MOMALIT_HOME", str(tmp_path / "home"))
    assert momalit(*FIT, "--run_dir", "a").code == 0
    (cached,) = (tmp_path / "home/world_models").glob("*.ckpt")
    flip_a_bit(cached)
    outcome = momalit(*FIT, "--run_dir", "b")
    assert outcome.code == 0
    assert "in the cache is damaged" in outcome.stderr
    assert (tmp_path / "a/metrics.csv").read_bytes() == (tmp_path / "b/metrics.csv").read_bytes()


@pytest.mark.fault("learning rate too high", "1e30, two modules", "one line with the rate, exit code 1")
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


@pytest.mark.fault("numbers go wrong in a resumed run", "a rate of 1e30", "the checkpoint before is kept and resumes")
def test_the_checkpoint_before_numbers_went_wrong_is_kept_and_named(momalit, tmp_path: Path) -> None:
    assert momalit(*FIT, "--run_dir", "run").code == 0
    more = ("--ckpt_path", "last", "--trainer.max_epochs", "4", "--model.lr", "1e30")
    outcome = momalit("fit", "--run_dir", "run", *more)
    assert outcome.code == 1
    assert "the checkpoint of the epoch before is kept: run/checkpoints/last.ckpt" in outcome.stderr
    assert momalit("fit", "--run_dir", "run", "--ckpt_path", "last", "--trainer.max_epochs", "4").code == 0


@pytest.mark.fault("resumed with other data", "another split, the dataset replaced", "one line, exit code 2")
def test_a_run_continues_with_the_data_that_it_began_with(momalit, tmp_path: Path) -> None:
    assert momalit("collect", "icg/unfavourable", "--transitions", "1000", "--output", "data").code == 0
    assert momalit(*FIT, "--data.dataset", "data", "--run_dir", "run").code == 0
    resume = ("fit", "--run_dir", "run", "--ckpt_path", "last", "--trainer.max_epochs", "3")
    outcome = momalit(*resume, "--data.split_seed", "1")
    assert outcome.code == 2
    assert "error: data: data differs from the data with which run began" in outcome.stderr
    (tmp_path / "data").rename(tmp_path / "old")
    assert momalit("collect", "icg/favourable", "--transitions", "1000", "--output", "data").code == 0
    assert momalit(*resume).code == 2
    elsewhere = ("--run_dir", "other", "--ckpt_path", "run/checkpoints/last.ckpt", "--trainer.max_epochs", "3")
    assert momalit("fit", "--config", "run/config.yaml", *elsewhere).code == 0


LIMITED = """
import resource, sys
from momalit.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
raise SystemExit(main(sys.argv[2:]))
"""


@pytest.mark.skipif(os.name != "posix", reason="limits of file sizes are POSIX's")
@pytest.mark.fault("no space", "a limit for files, at three sizes", "one line, exit code 1; resumes with space")
@pytest.mark.parametrize("size", [500, 20_000, 150_000])
def test_no_space_ends_in_one_line_and_the_run_resumes(size: int, momalit, tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIMITED, str(size), *FIT, "--run_dir", "run"]
    ended = subprocess.run(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode in (1, 2), ended.stderr
    assert "Traceback" not in ended.stderr
    assert "cannot be written" in ended.stderr.splitlines()[-1]
    resume = ("--ckpt_path", "last") if RunDirectory(tmp_path / "run").record else ()
    assert momalit(*FIT, "--run_dir", "run", *resume).code == 0
    assert momalit(*FIT, "--run_dir", "whole").code == 0
    assert (tmp_path / "run/metrics.csv").read_bytes() == (tmp_path / "whole/metrics.csv").read_bytes()


@pytest.mark.fault("working directory deleted", "`rmdir` before the command", "one line, exit code 2")
def test_a_deleted_working_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    remove = "import os, sys; from momalit.cli import main; os.rmdir(os.getcwd()); sys.exit(main(['fit']))"
    ended = subprocess.run(
        [sys.executable, "-c", remove], cwd=tmp_path / "gone", stderr=subprocess.PIPE, text=True, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr == "error: working directory: found none, it was deleted; expected an existing one\n"
