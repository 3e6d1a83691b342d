"""Files that are whole or absent, and locks that die with their process."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from momalit.core.files import locked, remove_partial, replacing

HOLD = """
import sys, time
from pathlib import Path
from momalit.core.files import locked
with locked(Path(sys.argv[1])) as alone:
    print(alone, flush=True)
    time.sleep(60)
"""
UNGUARDED = """
import sys
from multiprocessing import get_context
from pathlib import Path
from momalit.core.files import locked
with locked(Path(sys.argv[1]), "waiting"):
    child = get_context("spawn").Process(target=print)
    child.start()
    child.join()
sys.exit(child.exitcode)
"""
WRITE = """
import sys
from pathlib import Path
from momalit.core.files import replacing
number = 0
while True:
    with replacing(Path(sys.argv[1])) as partial, partial.open("w") as file:
        for _ in range(1000):
            file.write(f"{number}\\n")
    number += 1
"""


@pytest.mark.fault("writing fails half way", "an exception while the file is written", "the old file stays, whole")
def test_replacing_leaves_the_old_file_if_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "numbers.csv"
    with replacing(path) as partial:
        assert partial.suffix == ".csv"
        partial.write_text("old")
    with pytest.raises(UnicodeEncodeError), replacing(path) as partial:
        partial.write_text("half of the n\u00e9w", encoding="ascii")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["numbers.csv"]


@pytest.mark.fault("killed while a file is replaced", "SIGKILL", "the old file or the new one, whole", times=12)
def test_kills_never_leave_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "numbers.csv"
    seen = set()
    for number in range(12):
        writer = subprocess.Popen([sys.executable, "-c", WRITE, str(path)])
        for _ in range(6000):
            if path.is_file():
                break
            time.sleep(0.01)
        time.sleep(0.2 + 0.013 * number)
        writer.kill()
        writer.wait()
        lines = path.read_text().splitlines()
        assert len(lines) == 1000
        assert len(set(lines)) == 1
        seen.add(lines[0])
    assert len(seen) > 1
    remove_partial(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["numbers.csv"]


@pytest.mark.fault("the holder of a lock is killed", "SIGKILL", "the lock is free at once")
def test_a_lock_is_held_by_one_process_and_dies_with_it(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        with locked(path) as alone:
            assert not alone
        holder.kill()
    with locked(path) as alone:
        assert alone


def test_who_waits_for_a_lock_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    command = [sys.executable, "-c", HOLD.replace("60", "1"), str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        with caplog.at_level("INFO"), locked(tmp_path / "run", "waiting for the other run") as alone:
            assert alone
            assert holder.wait() == 0
    assert "waiting for the other run" in caplog.text


def test_a_script_without_main_guard_does_not_wait_for_itself(tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(UNGUARDED)
    done = subprocess.run(
        [sys.executable, script, tmp_path / "data"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "must run its code under `if __name__" in done.stderr.splitlines()[-1]
