"""Epochs that come to a given number of gradient steps."""

import pytest
import torch

from momalit.baselines import BCModule
from momalit.core.trajectories import Trajectories
from momalit.training.stages import MOST_EPOCHS, Stage, epochs_for
from momalit.world_model.module import WorldModelModule

WORLD_MODEL = Stage("world_model", "world model", WorldModelModule, (), gradient_steps=1000)
WARM_START = Stage("warm_start", "warm start", BCModule, (), gradient_steps=100)


@pytest.mark.parametrize(
    ("stage", "settings", "transitions", "epochs"),
    [
        (WORLD_MODEL, {"batch_size": 100}, 10_000, 10),
        (WORLD_MODEL, {"batch_size": 100}, 15_000, 7),
        (WORLD_MODEL, {"batch_size": 100}, 10_000_000, 1),
        (WORLD_MODEL, {"batch_size": 100}, 10, MOST_EPOCHS),
        # A little more than two batches of 10 windows, whose 1,024 positions cover an episode 25 times; half of them.
        (WARM_START, {"batch_size": 10, "window": 25, "top_fraction": 0.5}, 1000, 49),
    ],
)
def test_epochs_follow_from_the_gradient_steps(stage, settings, transitions, epochs):
    zero, no = torch.zeros(transitions), torch.zeros(transitions, dtype=torch.bool)
    length = torch.tensor([transitions])
    train = Trajectories.from_lengths(torch.zeros(transitions + 1, 1), zero.view(-1, 1, 1), zero, no, no, length)
    assert epochs_for(stage, settings, train) == epochs
