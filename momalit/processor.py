"""How the CPU multiplies matrices: threads, and the library behind float32 products."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def settle() -> None:
    """Chooses threads and products for the networks of this library; call it once, before any are made.

    Networks this small are ten times slower with threads that wait for each other on a busy machine, and the number of
    threads changes the order of sums: one thread makes equal seeds equal everywhere. ``OMP_NUM_THREADS`` asks for more.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    use_wide_products()


def use_wide_products() -> bool:
    """Lets oneDNN multiply float32 matrices where its AVX-512 code is as exact as the default library's.

    PyTorch's default on a CPU, MKL, keeps to the half as wide AVX2 on processors that are not Intel's. PyTorch hands
    products to oneDNN when they may be rounded to bfloat16, a permission that oneDNN uses only where matrix tiles (AMX)
    make it worthwhile; whether this processor does is tried out here, and then the default stays.

    Returns:
        whether oneDNN multiplies now.
    """
    products = getattr(torch.backends.mkldnn, "matmul", None)  # PyTorch 2.9 has brought it
    if products is None or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    before = products.fp32_precision
    products.fp32_precision = "bf16"
    if _exact():
        return True
    products.fp32_precision = before
    return False


@contextmanager
def default_products() -> Iterator[None]:
    """PyTorch's default library multiplies, whatever was chosen: for what must not depend on the choice."""
    products = getattr(torch.backends.mkldnn, "matmul", None)
    if products is None:
        yield
        return
    before = products.fp32_precision
    products.fp32_precision = "ieee"
    try:
        yield
    finally:
        products.fp32_precision = before


def _exact() -> bool:
    """Whether products keep what float32 holds: here all results are whole numbers, which bfloat16 would round."""
    a = torch.arange(64 * 96, dtype=torch.float32).view(1, 64, 96) % 1021
    b = torch.arange(96 * 32, dtype=torch.float32).view(1, 96, 32) % 13
    expected = a.double() @ b.double()
    both = torch.equal((a @ b).double(), expected) and torch.equal((a[0] @ b[0]).double(), expected[0])
    return both and torch.equal(torch.baddbmm(b.new_ones(1, 1, 32), a, b).double(), expected + 1)
