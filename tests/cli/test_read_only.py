"""Folders in which nothing can be written, and a user without a home directory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from momalit.training.run_directory import RunDirectory
from tests.privileges import bound_by_permissions

MAIN = [sys.executable, str(Path(__file__).resolve().parents[2] / "main.py")]
FIT = ("fit", "--config", "tiny.yaml")


@pytest.fixture
def _permissions_bind() -> Iterator[None]:
    """The superuser may write everywhere; here it may not."""
    if os.name != "posix":
        pytest.skip("permissions are POSIX's")
    if os.geteuid():
        yield
        return
    try:
        with bound_by_permissions():
            yield
    except OSError as error:
        pytest.skip(f"the superuser may write everywhere: {error}")


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "read_only"
    folder.mkdir()
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)


def one_line(stderr: str) -> str:
    """The last line, which is the only error."""
    assert "Traceback" not in stderr
    assert stderr.count("error:") == 1, stderr
    return stderr.splitlines()[-1]


@pytest.mark.usefixtures("_permissions_bind")
@pytest.mark.fault("read-only cache", "permissions", "trains, with a line that nothing was cached")
def test_a_run_goes_on_without_a_cache(momalit, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MOMALIT_HOME", str(tmp_path / "home"))
    assert momalit(*FIT, "--run_dir", "a").code == 0
    for cached in (tmp_path / "home").glob("*/*.ckpt"):
        cached.unlink()
    for folder in ("world_models", "warm_starts"):
        (tmp_path / "home" / folder).chmod(0o555)
    outcome = momalit(*FIT, "--run_dir", "b")
    assert outcome.code == 0
    assert "world model: cannot be kept in" in outcome.stderr


@pytest.mark.usefixtures("_permissions_bind")
@pytest.mark.fault("read-only folder for the run", "permissions", "one line, nothing trained")
@pytest.mark.parametrize("run_dir", ["read_only/run", "read_only"])
def test_a_run_directory_that_cannot_be_written_is_named(momalit, read_only: Path, run_dir: str) -> None:
    outcome = momalit(*FIT, "--run_dir", run_dir)
    assert outcome.code in (1, 2)
    assert "read_only" in one_line(outcome.stderr)
    assert "cannot be written" in outcome.stderr
    assert not list(read_only.iterdir())


@pytest.mark.usefixtures("_permissions_bind")
@pytest.mark.fault("read-only `$MOMALIT_HOME`", "permissions, two commands", "one line that names the folder")
@pytest.mark.parametrize("command", [FIT, ("collect", "icg/favourable")], ids=lambda command: command[0])
def test_a_home_that_cannot_be_written_is_named(
    momalit, read_only: Path, command: tuple[str, ...], monkeypatch
) -> None:
    monkeypatch.setenv("MOMALIT_HOME", str(read_only))
    outcome = momalit(*command)
    assert outcome.code in (1, 2)
    assert str(read_only) in one_line(outcome.stderr)
    assert not list(read_only.iterdir())


@pytest.mark.usefixtures("_permissions_bind")
@pytest.mark.fault(
    "read-only finished run", "permissions, then `test` and `report`", "one line, the run stays as it is"
)
@pytest.mark.parametrize("command", [("test", "--run_dir", "run"), ("report", "run")], ids=lambda command: command[0])
def test_a_finished_run_that_cannot_be_written_stays_whole(momalit, tmp_path: Path, command: tuple[str, ...]) -> None:
    assert momalit(*FIT, "--run_dir", "run").code == 0
    run = tmp_path / "run"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    folders = [run, *(path for path in run.rglob("*") if path.is_dir())]
    for path in (*before, *folders):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        outcome = momalit(*command)
    finally:
        for path in folders:
            path.chmod(0o755)
    if outcome.code:
        assert "run" in one_line(outcome.stderr)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert RunDirectory(run).record["status"] == "finished"


NOBODY = """
import pwd, sys
def unknown(user):
    raise KeyError(user)
pwd.getpwuid = unknown
from momalit.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.fault("no home directory", "a user without one, `HOME` unset", "one line that names `MOMALIT_HOME`")
def test_a_user_without_a_home_is_told_what_to_set(momalit, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "MOMALIT_HOME")}
    command = [sys.executable, "-c", NOBODY, *FIT, "--run_dir", "run"]
    settings = {"cwd": tmp_path, "stderr": subprocess.PIPE, "text": True, "check": False}
    ended = subprocess.run(command, env=environment, **settings)
    assert ended.returncode == 2, ended.stderr
    assert "MOMALIT_HOME: found none" in one_line(ended.stderr)
    ended = subprocess.run(command, env={**environment, "MOMALIT_HOME": str(tmp_path / "home")}, **settings)
    assert ended.returncode == 0, ended.stderr
