"""``python -m tests.benchmarks.gpu``: the speed of every stage on a GPU, as Markdown, and where it waits for the host.

Rates are shares of what the same card reaches in products of large matrices with the same precision.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from tests.benchmarks.workloads import PolicyIteration, make_spec, model_products, world_model_step

PRECISIONS = ("fp32", "tf32", "bf16")
# Width and number of blocks of the world model's networks, its members, rollouts per iteration, minibatches.
SIZES = {
    "small": ((200, 2), 5, 200, 4),
    "ant.yaml": ((128, 8), 5, 160, 8),
    "paper": ((1024, 2), 5, 2_000, 4),
    "large": ((512, 2), 20, 20_000, 8),
    "largest": ((1024, 2), 20, 20_000, 8),
}
TINY = {"tiny": ((16, 1), 2, 8, 2)}
HORIZON = 10


class Measured(NamedTuple):
    """Seconds of one call (the median), how often it waited for the device, and its peak memory in MB."""

    seconds: float
    waits: int
    megabytes: float


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


@contextmanager
def products(precision_name: str) -> Iterator[None]:
    """Uses TF32 in float32 products for ``tf32``."""
    settings = torch.backends.cuda.matmul
    before = settings.fp32_precision
    settings.fp32_precision = "tf32" if precision_name == "tf32" else "ieee"
    try:
        yield
    finally:
        settings.fp32_precision = before


def measure(work: Callable[[], object], device: str, seconds: float) -> Measured:
    """Runs ``work`` three times to warm up, then for about ``seconds``; once each for 0 seconds."""
    repeats = 3 if seconds else 1
    for _ in range(repeats):
        work()
    waits = _waits(work, device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    synchronize(device)
    times: list[float] = []
    while sum(times) < seconds or len(times) < repeats:
        began = time.perf_counter()
        work()
        synchronize(device)
        times.append(time.perf_counter() - began)
    megabytes = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else 0.0
    return Measured(statistics.median(times), waits, megabytes)


def _waits(work: Callable[[], object], device: str) -> int:
    """How often one call of ``work`` waits for the device."""
    if device != "cuda":
        return 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


def peak_rates(device: str, size: int, seconds: float) -> dict[str, float]:
    """Operations per second in products of matrices of ``size``, by precision."""
    rates = {}
    for name in PRECISIONS:
        a, b = torch.randn(2, size, size, device=device, dtype=torch.bfloat16 if name == "bf16" else torch.float32)
        with products(name):
            rates[name] = 2.0 * size**3 / measure(lambda a=a, b=b: a @ b, device, seconds).seconds
    return rates


def bandwidth(device: str, count: int, seconds: float) -> float:
    """Bytes per second of a copy, read and written."""
    source = torch.randn(count, device=device)
    target = torch.empty_like(source)
    return 8.0 * count / measure(lambda: target.copy_(source), device, seconds).seconds


def lines(device: str, sizes: dict[str, tuple[tuple[int, int], int, int, int]], seconds: float) -> Iterator[str]:
    """Yields the lines of the tables."""
    tiny = sizes is TINY
    rates = peak_rates(device, 64 if tiny else 8192, seconds)
    copied = bandwidth(device, 2**12 if tiny else 2**28, seconds)
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    reached = ", ".join(f"{precision} {rate / 1e12:,.1f}" for precision, rate in rates.items())
    yield f"{name}, torch {torch.__version__}. Products of large matrices, TFLOP/s: {reached}."
    yield f"Copies: {copied / 1e9:,.0f} GB/s.\n"
    yield "| stage | size | precision | ms | transitions/s | TFLOP/s in the world model | of the card's | waits | MB |"
    yield "|---|---|---|---|---|---|---|---|---|"
    spec = make_spec("ant")
    for size, (network, members, n_rollouts, n_minibatches) in sizes.items():
        for precision_name in PRECISIONS:
            with products(precision_name):
                iteration = PolicyIteration(
                    spec, network, n_rollouts, HORIZON, n_minibatches, precision_name, members=members, device=device
                )
                rollout = iteration.imagine()
                rows, imagined = 256, n_rollouts * HORIZON
                stages = {
                    "world model, a step": (
                        world_model_step(spec, network, precision_name, members, rows, device),
                        rows,
                        3 * model_products(spec, network, rows, members),
                    ),
                    "imagination": (
                        iteration.imagine,
                        imagined,
                        HORIZON * model_products(spec, network, n_rollouts, members),
                    ),
                    "update": (lambda i=iteration, r=rollout: i.update(r), imagined, 0.0),
                }
                for stage, (work, transitions, operations) in stages.items():
                    found = measure(work, device, seconds)
                    rate = operations / found.seconds
                    used = [f"{rate / 1e12:.2f}", f"{rate / rates[precision_name]:.0%}"] if operations else ["", ""]
                    cells = [stage, size, precision_name, f"{1000 * found.seconds:,.2f}"]
                    cells += [f"{transitions / found.seconds:,.0f}", *used, str(found.waits), f"{found.megabytes:,.0f}"]
                    yield f"| {' | '.join(cells)} |"


def main(arguments: list[str] | None = None) -> None:
    """Prints the tables line by line, so that a run that is cut short leaves what it has measured."""
    parser = argparse.ArgumentParser(description="The speed of every stage on a GPU.")
    parser.add_argument("--seconds", type=float, default=0.5, help="time of a measurement (default: 0.5)")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes on the CPU, to see that it works")
    options = parser.parse_args(arguments)
    if not options.tiny and not torch.cuda.is_available():
        parser.error("found no CUDA device, expected one (--tiny runs on the CPU)")
    chosen = ("cpu", TINY, 0.0) if options.tiny else ("cuda", SIZES, options.seconds)
    for line in lines(*chosen):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
