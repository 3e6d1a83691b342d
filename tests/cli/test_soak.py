"""What long use leaves behind: memory and open files do not grow, and a large study finishes in spite of failures."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import pytest

from tests.cli.conftest import TINY

MAIN = [sys.executable, str(Path(__file__).resolve().parents[2] / "main.py")]
MINUTES = float(os.environ.get("MOMALIT_SOAK_MINUTES", "2"))
STUDY = """\
seeds: 50
tasks:
  game: {config: tiny.yaml}
methods:
  MOMA-PPO: {}
settings:
  fine: {}
  wrong: {options: {model.lr: 1e30}}
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="memory and files are read from /proc"),
]


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "MOMALIT_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}


def resident(process: subprocess.Popen[bytes]) -> float:
    """Resident memory in MB."""
    text = Path(f"/proc/{process.pid}/statm").read_text()
    return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def samples(command: list[str], folder: Path, seconds: float) -> list[tuple[float, int]]:
    """Runs a command. Returns its memory in MB and its number of open files at regular times."""
    found = []
    with subprocess.Popen([*MAIN, *command], cwd=folder, env=environment(folder), stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        os.set_blocking(process.stderr.fileno(), False)
        while process.poll() is None:
            time.sleep(seconds)
            process.stderr.read()
            try:
                found.append((resident(process), len(os.listdir(f"/proc/{process.pid}/fd"))))
            except (OSError, IndexError):
                break  # it has just ended
    assert process.returncode == 0
    return found


@pytest.mark.fault("long training", f"{MINUTES:g} minutes", "memory within 5 %, the same number of open files")
def test_long_training_keeps_memory_and_files(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    limit = time.strftime("00:%H:%M:%S", time.gmtime(60 * MINUTES))
    options = ["--trainer.max_epochs", "-1", "--trainer.max_time", limit, "--trainer.check_val_every_n_epoch", "20"]
    found = samples(["fit", "--config", "tiny.yaml", "--run_dir", "run", *options], tmp_path, MINUTES)
    third = len(found) // 3
    early, late = found[third : 2 * third], found[2 * third : -1]  # the first third starts up
    memory, files = ([median(sample[i] for sample in part) for part in (early, late)] for i in (0, 1))
    assert memory[1] < 1.05 * memory[0], (memory, found)
    assert files[1] <= files[0], (files, found)


@pytest.mark.fault("many evaluation episodes", "10,000 in one `test`", "memory as for 1,000 within 10 %", times=10_000)
def test_many_evaluation_episodes_take_no_more_memory(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    fit = [*MAIN, "fit", "--config", "tiny.yaml", "--run_dir", "run"]
    subprocess.run(fit, cwd=tmp_path, env=environment(tmp_path), capture_output=True, check=True)
    largest = []
    for episodes in (1_000, 10_000):
        command = ["test", "--run_dir", "run", "--evaluation.test_episodes", str(episodes)]
        largest.append(max(memory for memory, _ in samples(command, tmp_path, 0.1)))
    assert largest[1] < 1.1 * largest[0], largest


@pytest.mark.fault("runs of a study fail", "50 of 100", "the other 50 finish; the failed ones are named", times=100)
def test_a_study_finishes_around_its_failures(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "mine.yaml").write_text(STUDY)
    command = [*MAIN, "study", "mine.yaml", "--output", "results", "--jobs", "2"]
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    failed = re.findall(r"(\S+), seed (\d+) failed", ended.stderr)
    assert sorted(failed) == sorted(("game-wrong-moma_ppo", str(seed)) for seed in range(50)), ended.stderr
    with (tmp_path / "results/results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["setting"] for row in rows] == 50 * ["fine"]
