"""Small hand-made datasets, and functions to train on them."""

import lightning.pytorch as pl
import torch

from momalit.core.team import AgentSpec, TeamSpec
from momalit.core.trajectories import Trajectories


class Recorded(pl.LightningDataModule):
    """A data module with given training trajectories."""

    def __init__(self, spec, train):
        super().__init__()
        self.spec, self.train = spec, train

    def train_dataloader(self):
        return self.trainer.lightning_module.train_dataloader()

    def val_dataloader(self):
        return self.trainer.lightning_module.val_dataloader()


def make_trainer(epochs, **kwargs):
    return pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, **kwargs,
    )  # fmt: skip


def fit(module, data, epochs):
    make_trainer(epochs).fit(module, datamodule=data)
    return module.eval()


def team(discrete, n_agents=2, state_size=1, observes=None):
    """Agents with two discrete actions or one action in [-1, 1]. Agent i observes columns ``observes[i]``, or all."""
    bounds = ((), ()) if discrete else ((-1.0,), (1.0,))
    everything = tuple(range(state_size))
    agents = tuple(
        AgentSpec(f"agent_{i}", observes[i] if observes else everything, 2 if discrete else 1, *bounds)
        for i in range(n_agents)
    )
    return TeamSpec("toy", agents, state_size, discrete, 2, tuple(("state", i) for i in everything))


def one_step_dataset(spec, state, action, reward):
    """A dataset in which each row is an episode of one step that terminates."""
    rows = len(reward)
    states = torch.stack([state, state], 1).flatten(0, 1)
    terminated = torch.ones(rows, dtype=torch.bool)
    lengths = torch.ones(rows, dtype=torch.long)
    return Recorded(spec, Trajectories.from_lengths(states, action, reward, terminated, ~terminated, lengths))
