"""One thread unless ``BENCHMARK_THREADS`` says otherwise, and what the machine gives at best in the same run."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
import torch

from momalit.training.cpu import default_matmul
from tests.memory import PEAK, begin_anew, held


@pytest.fixture(autouse=True, scope="session")
def threads() -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(int(os.environ.get("BENCHMARK_THREADS", "1")))
    yield torch.get_num_threads()
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def limits(threads) -> dict[str, float]:
    """Operations per second of float32 products of 1024x1024: by PyTorch's default library, and by the one used."""
    with default_matmul():
        default = products_per_second()
    return {"default": default, "chosen": products_per_second()}


def products_per_second(size: int = 1024, seconds: float = 0.5) -> float:
    a, b = torch.randn(2, size, size)
    for _ in range(3):
        a @ b
    best = 0.0
    for _ in range(3):
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < seconds / 3:
            a @ b
            count += 1
        best = max(best, 2.0 * size**3 * count / (time.perf_counter() - began))
    return best


@pytest.fixture
def before() -> int:
    """Bytes that were held before anything of a benchmark was made; 0 where the kernel does not say."""
    return begin_anew() if PEAK.exists() else 0


@pytest.fixture
def note(before, benchmark, threads, limits):
    """Adds to a benchmark's record, and so to the JSON file and the table, what its seconds mean."""

    def add(transitions: float = 0, operations: float = 0, reference: float = 0, elsewhere: bool = False) -> None:
        """Notes.

        Args:
            transitions: handled per round.
            operations: multiplications and additions of the matrix products per round.
            reference: seconds of the research code for the same work.
            elsewhere: whether it happened in other processes.
        """
        seconds = benchmark.stats.stats.min
        info = {"threads": threads}
        if before and not elsewhere:
            info["peak_mb"] = round((held()[1] - before) / 2**20)
        info |= {f"gflops_{name}": round(limit / 1e9) for name, limit in limits.items()}
        if transitions:
            info["transitions_per_second"] = round(transitions / seconds)
        if operations:
            info["gflops"] = round(operations / seconds / 1e9)
            info["share_of_default"] = round(operations / seconds / limits["default"], 2)
            info["share_of_chosen"] = round(operations / seconds / limits["chosen"], 2)
        if reference:
            info["times_faster"] = round(reference / seconds, 2)
        benchmark.extra_info.update(info)

    return add
