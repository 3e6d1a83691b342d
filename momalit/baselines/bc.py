"""Behaviour cloning: every agent imitates its own part of the log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.utils.data import DataLoader

from momalit.batches import count_shared, generator_for, shared_chunks
from momalit.errors import UserError
from momalit.functional.processes import weight_of_share
from momalit.functional.surrogate import masked_mean
from momalit.hyperparameters import plain_arguments
from momalit.nn.actors import TeamActor
from momalit.policy import TeamPolicyModule
from momalit.records import Trajectories, Windows
from momalit.team import TeamSpec


class BCModule(TeamPolicyModule):
    """Maximises the likelihood of each agent's actions given its own history.

    Args:
        spec: the team (the command line links it to the data).
        width: units of the linear layers.
        memory: units of the GRUs.
        shared: one network for all agents.
        lr: learning rate at the start, annealed to zero by a half cosine.
        window: steps per training window.
        memory_length: real steps of burn-in before each window.
        batch_size: windows per minibatch, in all processes together.
        best: share of the training episodes, those with the highest returns, that is cloned; 1 for all.
        initial_std: deviation of continuous actions at the start, as a share of half their range.
        min_std: least deviation.
    """

    def __init__(
        self,
        spec: TeamSpec | Mapping[str, Any],
        width: int = 256,
        memory: int = 128,
        shared: bool = False,
        lr: float = 1e-3,
        window: int = 25,
        memory_length: int = 10,
        batch_size: int = 64,
        best: float = 1.0,
        initial_std: float = 0.5,
        min_std: float = 0.05,
    ) -> None:
        arguments = plain_arguments(locals())
        super().__init__(spec)
        self.save_hyperparameters(arguments)
        for name, number, least in (
            ("window", window, 1),
            ("batch_size", batch_size, 1),
            ("memory_length", memory_length, 0),
        ):
            if number < least:
                raise UserError(f"model.{name}: found {number}, expected at least {least}")
        if not 0 < best <= 1:
            raise UserError(f"model.best: found {best}, expected a number above 0 and up to 1")
        self.actor = TeamActor(self.spec, width, memory, shared, initial_std, min_std)
        self._cloned: Trajectories | None = None
        self._losses: list[Tensor] = []

    def setup(self, stage: str) -> None:
        """Takes the statistics of the training split, and picks the episodes to clone."""
        super().setup(stage)
        if stage == "fit":
            train: Trajectories = self.data.train.to("cpu")  # where this module still is
            self.actor.inputs.standardizer.fit(train.state)
            number = max(round(self.hparams["best"] * len(train.lengths)), 1)
            best = train.returns.argsort(descending=True, stable=True)[:number]
            self._cloned = train if number == len(train.lengths) else train.select(best.sort().values)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self._cloned = self.cloned.to(self.data.train.reward.device)

    @property
    def cloned(self) -> Trajectories:
        """The episodes that are cloned."""
        assert self._cloned is not None, "set when fitting begins"
        return self._cloned

    def train_dataloader(self) -> DataLoader:
        """As many windows as cover the cloned episodes once, from random beginnings."""
        number, _ = count_shared(self._n_windows, self.hparams["batch_size"], self.trainer.world_size)
        return self.stream(number, self._windows)

    @property
    def _n_windows(self) -> int:
        return max(len(self.cloned) // self.hparams["window"], 1)

    def _windows(self) -> Iterator[Windows]:
        data = self.cloned
        random = generator_for("cpu", torch.initial_seed(), self.current_epoch, 0, 4)
        # The same order in every process, which takes its share of each minibatch.
        order, size = torch.randperm(len(data), generator=random)[: self._n_windows], self.hparams["batch_size"]
        for index in shared_chunks(order, size, self.global_rank, self.trainer.world_size):
            yield data.windows(index.to(data.reward.device), self.hparams["memory_length"], self.hparams["window"])

    def training_step(self, batch: Windows, _: int) -> Tensor:
        """Negative log-likelihood per valid step and agent."""
        past = batch.sequence.state.shape[0] - batch.action.shape[0]
        memory = self.actor.remember(batch.sequence)[:, past:]
        policy = self.actor.distribution(memory, batch.sequence.state[past:])
        loss = -masked_mean(policy.log_prob(batch.action), batch.valid)
        self._losses.append(loss.detach())
        return loss * weight_of_share(batch.valid)

    def on_train_epoch_end(self) -> None:
        loss = torch.stack(self._losses).mean()
        self._losses.clear()
        if not bool(torch.isfinite(loss)):
            raise FloatingPointError(f"behaviour cloning: loss is {float(loss)} in epoch {self.current_epoch}")
        self.log("train/loss", loss, sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.Adam(self.actor.parameters(), self.hparams["lr"], fused=self.fused)
        if not self.trainer.max_epochs or self.trainer.max_epochs < 1:
            return optimizer
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.trainer.max_epochs)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "epoch"}}
