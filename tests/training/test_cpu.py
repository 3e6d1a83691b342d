"""Products by another library are as exact, freed memory is used again, and the choices can be put aside."""

import platform
import subprocess
import sys

import pytest
import torch

from momalit.training import cpu

products = torch.backends.mkldnn.matmul


@pytest.fixture(autouse=True)
def restored():
    before = products.fp32_precision
    yield
    products.fp32_precision = before


def test_products_are_as_exact_as_the_default_ones():
    random = torch.Generator().manual_seed(0)
    a, b = torch.randn(3, 64, 128, generator=random), torch.randn(3, 128, 96, generator=random)
    expected = a.double() @ b.double()
    products.fp32_precision = "ieee"
    default = (torch.bmm(a, b) - expected).abs().mean()
    cpu.use_onednn_matmul()
    assert (torch.bmm(a, b) - expected).abs().mean() < 3 * default


def test_a_processor_that_rounds_keeps_the_default(monkeypatch):
    products.fp32_precision = "ieee"
    monkeypatch.setattr(cpu, "_exact", lambda: False)
    assert not cpu.use_onednn_matmul()
    assert products.fp32_precision == "ieee"


def test_an_older_processor_keeps_the_default(monkeypatch):
    products.fp32_precision = "ieee"
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert not cpu.use_onednn_matmul()
    assert products.fp32_precision == "ieee"


def test_the_exactness_check_notices_rounding(monkeypatch):
    assert cpu._exact()
    plain = torch.baddbmm
    monkeypatch.setattr(torch, "baddbmm", lambda bias, a, b: plain(bias, a.bfloat16().float(), b.bfloat16().float()))
    assert not cpu._exact()


def test_the_default_products_for_a_while():
    products.fp32_precision = "bf16"
    with cpu.default_matmul():
        assert products.fp32_precision == "ieee"
    assert products.fp32_precision == "bf16"


def test_threads(monkeypatch):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        cpu.configure_cpu()
        assert torch.get_num_threads() == 2
        monkeypatch.delenv("OMP_NUM_THREADS")
        cpu.configure_cpu()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


FAULTS = """
import resource, sys
import torch
from momalit.training.cpu import configure_cpu

if sys.argv[1] == "settled":
    configure_cpu()
for step in range(12):
    if step == 4:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.zeros(2**23) for _ in range(4)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries manage memory in other ways")
def test_freed_memory_is_used_again():
    def faults(kind: str) -> int:
        answer = subprocess.run([sys.executable, "-c", FAULTS, kind], capture_output=True, text=True, check=True)
        return int(answer.stdout)

    assert faults("settled") < 100 < 10_000 < faults("as it was")


def test_a_choice_in_the_environment_stays(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1")
    assert not cpu.keep_freed_memory()
