"""The benchmark of a GPU runs on the CPU with tiny sizes."""

from __future__ import annotations

import pytest
import torch

from tests.benchmarks.gpu import PRECISIONS, TINY, lines, main


def test_every_stage_is_measured_in_every_precision():
    before = torch.backends.cuda.matmul.fp32_precision
    first, copies, header, _, *rows = lines("cpu", TINY, 0.0)
    assert first.startswith("CPU, torch ")
    assert copies.startswith("Copies: ")
    assert {row.count("|") for row in rows} == {header.count("|")}
    stages = ("world model, a step", "imagination", "update")
    assert [row.split(" | ")[:3] for row in rows] == [
        [f"| {stage}", "tiny", precision] for precision in PRECISIONS for stage in stages
    ]
    assert torch.backends.cuda.matmul.fp32_precision == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so(capsys):
    with pytest.raises(SystemExit):
        main([])
    assert "found no CUDA device, expected one" in capsys.readouterr().err
