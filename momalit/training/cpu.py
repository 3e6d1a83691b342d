"""How the CPU works for the networks: threads, the library behind float32 products, and memory that is freed."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# GNU's mallopt(3): M_MMAP_THRESHOLD, from which size blocks go back to the system when they are freed (older libraries
# take 32 MB at most), and M_TRIM_THRESHOLD, how much free memory is kept beside them.
_MMAP, _TRIM = (-3, (2**27, 2**25)), (-1, (2**30,))


def configure_cpu() -> None:
    """Chooses threads, products and allocation for the networks of this library; call it once, before any are made.

    Networks this small are ten times slower with threads that wait for each other on a busy machine, and the number of
    threads changes the order of sums: one thread makes equal seeds equal everywhere. ``OMP_NUM_THREADS`` asks for more.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    use_onednn_matmul()
    keep_freed_memory()


def keep_freed_memory() -> bool:
    """Lets the C library keep what a gradient step frees, for the next one.

    By default it returns large blocks to the system at once, which clears them page by page when they are asked for
    again: a fifth of a step of the ensemble at 4x1024. Blocks of more than 128 MB (32 MB with older C libraries), such
    as datasets, are still returned. ``MALLOC_TRIM_THRESHOLD_`` or ``MALLOC_MMAP_THRESHOLD_`` in the environment leaves
    the choice there.

    Returns:
        whether it does now; C libraries other than GNU's have no such choice.
    """
    if any(name in os.environ for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")):
        return False
    choose = None
    if sys.platform == "linux":
        choose = getattr(ctypes.CDLL(None), "mallopt", None)
    if choose is None:
        return False
    return all(any(choose(option, size) == 1 for size in sizes) for option, sizes in (_MMAP, _TRIM))


def use_onednn_matmul() -> bool:
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
def default_matmul() -> Iterator[None]:
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
