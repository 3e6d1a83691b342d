"""The chosen matrix library is as exact as the default, and the choice can be suspended."""

import pytest
import torch

from momalit.training import cpu

products = torch.backends.mkldnn.matmul


@pytest.fixture(autouse=True)
def restored():
    before = products.fp32_precision
    yield
    products.fp32_precision = before


def test_onednn_products_are_as_accurate_as_the_default_ones():
    random = torch.Generator().manual_seed(0)
    a, b = torch.randn(3, 64, 128, generator=random), torch.randn(3, 128, 96, generator=random)
    expected = a.double() @ b.double()
    products.fp32_precision = "ieee"
    default = (torch.bmm(a, b) - expected).abs().mean()
    cpu.use_onednn_matmul()
    assert (torch.bmm(a, b) - expected).abs().mean() < 3 * default


def test_a_processor_that_rounds_factors_keeps_the_default(monkeypatch):
    products.fp32_precision = "ieee"
    monkeypatch.setattr(cpu, "_exact", lambda: False)
    assert not cpu.use_onednn_matmul()
    assert products.fp32_precision == "ieee"


def test_an_older_processor_keeps_the_default(monkeypatch):
    products.fp32_precision = "ieee"
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert not cpu.use_onednn_matmul()
    assert products.fp32_precision == "ieee"


def test_the_accuracy_check_detects_rounding(monkeypatch):
    assert cpu._exact()
    plain = torch.baddbmm
    monkeypatch.setattr(torch, "baddbmm", lambda bias, a, b: plain(bias, a.bfloat16().float(), b.bfloat16().float()))
    assert not cpu._exact()


def test_the_default_products_within_a_context():
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


def test_bfloat16_is_found_where_the_processor_has_it(monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert not cpu.has_bfloat16(torch.device("cpu"))
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    assert cpu.has_bfloat16(torch.device("cpu"))
    assert not cpu.has_bfloat16(torch.device("mps"))
