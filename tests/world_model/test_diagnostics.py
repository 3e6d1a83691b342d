"""Diagnostics of a world model, compared with values counted by hand."""

import pytest
import torch

from momalit.world_model.diagnostics import termination_scores


def test_precision_and_recall_of_terminations():
    # Two elites; their mean logits are 1, 1, -1, -1, 2.
    logits = torch.tensor([[3.0, 1, -1, -3, 2], [-1.0, 1, -1, 1, 2]])
    terminated = torch.tensor([True, False, True, False, True])
    scores = termination_scores(logits, terminated)
    assert scores == {"precision": pytest.approx(2 / 3), "recall": pytest.approx(2 / 3)}
