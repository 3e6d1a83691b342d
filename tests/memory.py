"""``python -m tests.memory SMALL PATH``: measures memory and time for loading the dataset at PATH, as JSON.

The dataset SMALL is loaded first, so that libraries, whose size differs between machines, do not count.

Linux only, because the figures are those that the kernel reports for the process.
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
CLEAR_REFS = Path("/proc/self/clear_refs")  # writing 5 resets the kernel's record of the peak


def loading_memory(dataset: Path, small: Path) -> dict[str, float]:
    """Loads ``dataset`` in a new process, after the dataset ``small``, and measures its memory.

    Returns:
        ``raw``: bytes of the dataset's tensors. ``resident``: growth of the process's memory when training, validation
        and test data are loaded. ``peak``: growth at the peak until then. ``peak_fitted``: growth at the peak including
        the computation of a world model's statistics. ``seconds``: loading time.
    """
    command = [sys.executable, "-m", "tests.memory", str(small), str(dataset)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def reset_peak() -> int:
    """Returns unused memory to the system and resets the record of the peak.

    Returns:
        bytes of memory that this process still uses.
    """
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
    CLEAR_REFS.write_text("5")
    return memory_usage()[0]


def memory_usage() -> tuple[int, int]:
    """Returns this process's current and peak memory in bytes."""
    fields = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    now, peak = (1024 * int(fields[key].split()[0]) for key in ("VmRSS", "VmHWM"))
    return now, peak


def _measure(small: str, dataset: str) -> dict[str, float]:
    from datamodules import OfflineDataModule
    from momalit.training.cpu import configure_cpu
    from momalit.world_model.dynamics import ModelSpace

    configure_cpu()
    first = OfflineDataModule(small)
    ModelSpace(first.spec).fit(first.train, 0.99)
    del first
    before = reset_peak()
    start = time.perf_counter()
    data = OfflineDataModule(dataset)
    splits = [data.train, data.validation, data.test]
    seconds = time.perf_counter() - start
    resident, peak = memory_usage()
    ModelSpace(data.spec).fit(data.train, 0.99)
    _, fitted = memory_usage()
    whole = data.contents.trajectories
    tensors = [whole.state, whole.action, whole.reward, whole.terminated, whole.truncated]
    assert sum(map(len, splits)) == len(whole)
    return {
        "raw": sum(tensor.nbytes for tensor in tensors),
        "resident": resident - before,
        "peak": peak - before,
        "peak_fitted": fitted - before,
        "seconds": seconds,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_measure(*sys.argv[1:])))
