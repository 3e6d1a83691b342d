"""``python -m tests.memory PATH``: what it takes to load the dataset at PATH in a fresh process, as JSON.

Linux only: the kernel says how much memory a process holds, and how much it held at most.
"""

from __future__ import annotations

import ctypes
import gc
import json
import subprocess
import sys
import time
from pathlib import Path

STATUS = Path("/proc/self/status")
PEAK = Path("/proc/self/clear_refs")  # a 5 written here makes the kernel's record of the peak begin anew


def of_loading(dataset: Path) -> dict[str, float]:
    """Loads ``dataset`` in a process of its own.

    Returns:
        bytes of the numbers in it (``raw``), growth of the process's memory once all parts of it are ready to train on
        (``resident``) and on the way there (``peak``), growth at the peak with a world model's statistics taken from
        them as well (``peak_fitted``), and ``seconds`` until they were ready.
    """
    command = [sys.executable, "-m", "tests.memory", str(dataset)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def begin_anew() -> int:
    """Gives memory that nobody uses back to the system, and lets the peak begin anew.

    Returns:
        bytes that are held.
    """
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
    PEAK.write_text("5")
    return held()[0]


def held() -> tuple[int, int]:
    """Bytes of memory that this process holds, and held at most."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    now, most = (1024 * int(lines[key].split()[0]) for key in ("VmRSS", "VmHWM"))
    return now, most


def _measure(dataset: str) -> dict[str, float]:
    from datamodules import OfflineDataModule
    from momalit.training.cpu import configure_cpu
    from momalit.world_model.dynamics import ModelSpace

    configure_cpu()
    before = begin_anew()
    began = time.perf_counter()
    data = OfflineDataModule(dataset)
    parts = [data.train, data.validation, data.test]
    seconds = time.perf_counter() - began
    resident, peak = held()
    ModelSpace(data.spec).fit(data.train, 0.99)
    _, fitted = held()
    everything = data.contents.trajectories
    numbers = [everything.state, everything.action, everything.reward, everything.terminated, everything.truncated]
    assert sum(map(len, parts)) == len(everything)
    return {
        "raw": sum(tensor.nbytes for tensor in numbers),
        "resident": resident - before,
        "peak": peak - before,
        "peak_fitted": fitted - before,
        "seconds": seconds,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_measure(sys.argv[1])))
