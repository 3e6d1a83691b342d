"""Diagnostics of a world model, compared with values counted by hand."""

import pytest
import torch

from momalit.world_model.diagnostics import error_slope, termination_scores


def test_precision_and_recall_of_terminations():
    # Two elites; their mean logits are 1, 1, -1, -1, 2.
    logits = torch.tensor([[3.0, 1, -1, -3, 2], [-1.0, 1, -1, 1, 2]])
    terminated = torch.tensor([True, False, True, False, True])
    scores = termination_scores(logits, terminated)
    assert scores == {"precision": pytest.approx(2 / 3), "recall": pytest.approx(2 / 3)}


def test_the_slope_of_the_error_over_the_disagreement():
    u_all = torch.linspace(0, 1, 101)
    assert float(error_slope(u_all, 0.1 + 3 * u_all)) == pytest.approx(3, rel=0.01)
    assert float(error_slope(torch.ones(5), torch.arange(5.0))) == 0
    # One step of immense disagreement counts as one of the most usual.
    outlier = torch.cat([u_all, torch.tensor([1e6])])
    assert float(error_slope(outlier, 0.1 + 3 * outlier.clamp(max=1))) == pytest.approx(3, rel=0.02)
