"""How a CPU computes: cores, threads, the library that multiplies float32 matrices, and whether it has bfloat16."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch


def configure_cpu() -> None:
    """Chooses threads and the matrix library; call it once, before any network is made.

    Networks this small run ten times slower when several threads compete for a busy machine, and the number of threads
    changes the order of summation. One thread makes runs reproducible; ``OMP_NUM_THREADS`` asks for more.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    use_onednn_matmul()


def cores() -> int:
    """Returns the number of cores that this process may use; a container's share of time counts as whole cores."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(min(allowed, int(quota) // int(period)), 1)
    except (OSError, ValueError):  # no such file, or "max": no limit
        return allowed


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 matrices by instructions of its own.

    Without them PyTorch emulates the products, on a CPU with AVX2 55 times as slowly as those of float32 (256 x 256).
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # private, so they may vanish
    return any(getattr(torch.cpu, name, lambda: False)() for name in checks)


def use_onednn_matmul() -> bool:
    """Lets oneDNN multiply float32 matrices where its AVX-512 code is as exact as the default library's.

    PyTorch's default, MKL, uses only AVX2 on processors that are not Intel's. Measured on an AMD EPYC with AVX-512,
    oneDNN makes float32 world-model training 1.2 (``icg.yaml``), 1.7 (``reacher.yaml``) and 1.75 times (``ant.yaml``
    without bf16) as fast. A policy iteration is 1.5 times as fast on Reacher and 8 % slower on ``icg.yaml``.

    PyTorch sends products to oneDNN when they may be rounded to bfloat16. oneDNN uses that permission only where matrix
    tiles (AMX) make rounding worthwhile. This function tests whether the processor rounds, and keeps the default then.

    Returns:
        whether oneDNN multiplies now.
    """
    settings = getattr(torch.backends.mkldnn, "matmul", None)
    if settings is None or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    before = settings.fp32_precision
    settings.fp32_precision = "bf16"
    if _exact():
        return True
    settings.fp32_precision = before
    return False


def float32_by_onednn() -> bool:
    """Whether oneDNN multiplies float32 matrices. Bits of batched products of few rows then depend on the batch."""
    settings = getattr(torch.backends.mkldnn, "matmul", None)
    return settings is not None and settings.fp32_precision == "bf16"


@contextmanager
def default_matmul() -> Iterator[None]:
    """Uses PyTorch's default library, for results that must not depend on ``use_onednn_matmul``."""
    settings = getattr(torch.backends.mkldnn, "matmul", None)
    if settings is None:
        yield
        return
    before = settings.fp32_precision
    settings.fp32_precision = "ieee"
    try:
        yield
    finally:
        settings.fp32_precision = before


def _exact() -> bool:
    """Whether products keep float32's digits: all results here are whole numbers that bfloat16 would round."""
    a = torch.arange(64 * 96, dtype=torch.float32).view(1, 64, 96) % 1021
    b = torch.arange(96 * 32, dtype=torch.float32).view(1, 96, 32) % 13
    expected = a.double() @ b.double()
    both = torch.equal((a @ b).double(), expected) and torch.equal((a[0] @ b[0]).double(), expected[0])
    return both and torch.equal(torch.baddbmm(b.new_ones(1, 1, 32), a, b).double(), expected + 1)
