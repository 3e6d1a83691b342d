"""Fixtures of the benchmarks: number of threads, peak throughput of the machine, and extra columns of the results."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
import torch

from momalit.training.cpu import default_matmul
from tests.memory import CLEAR_REFS, memory_usage, reset_peak


@pytest.fixture(autouse=True, scope="session")
def threads() -> Iterator[int]:
    """Sets the number of PyTorch threads to ``BENCHMARK_THREADS``, by default 1."""
    before = torch.get_num_threads()
    torch.set_num_threads(int(os.environ.get("BENCHMARK_THREADS", "1")))
    yield torch.get_num_threads()
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def peak_throughput(threads) -> dict[str, float]:
    """Operations per second of float32 products of 1024x1024 matrices, with PyTorch's default and the used library."""
    with default_matmul():
        default = measure_throughput()
    return {"default": default, "chosen": measure_throughput()}


def measure_throughput(size: int = 1024, seconds: float = 0.5) -> float:
    a, b = torch.randn(2, size, size)
    for _ in range(3):
        a @ b
    best = 0.0
    for _ in range(3):
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < seconds / 3:
            a @ b
            count += 1
        best = max(best, 2.0 * size**3 * count / (time.perf_counter() - start))
    return best


@pytest.fixture
def memory_before() -> int:
    """Bytes of memory in use before the benchmark; 0 if the kernel does not report them."""
    return reset_peak() if CLEAR_REFS.exists() else 0


@pytest.fixture
def record(memory_before, benchmark, threads, peak_throughput):
    """Returns a function that adds derived figures to a benchmark's result, for the JSON file and the table."""

    def add(transitions: float = 0, operations: float = 0, subprocess: bool = False) -> None:
        """Adds the figures.

        Args:
            transitions: number of transitions per round.
            operations: multiplications and additions of the matrix products per round.
            subprocess: whether the work was done in other processes, whose memory is not measured.
        """
        seconds = benchmark.stats.stats.min
        info = {"threads": threads}
        if memory_before and not subprocess:
            info["peak_mb"] = round((memory_usage()[1] - memory_before) / 2**20)
        info |= {f"gflops_{name}": round(peak / 1e9) for name, peak in peak_throughput.items()}
        if transitions:
            info["transitions_per_second"] = round(transitions / seconds)
        if operations:
            info["gflops"] = round(operations / seconds / 1e9)
            info["share_of_default"] = round(operations / seconds / peak_throughput["default"], 2)
            info["share_of_chosen"] = round(operations / seconds / peak_throughput["chosen"], 2)
        benchmark.extra_info.update(info)

    return add
