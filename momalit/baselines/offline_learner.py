"""What all baselines have in common: they learn from minibatches of pieces of the log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from momalit.core.distributed import mean_over_processes
from momalit.core.errors import UserError
from momalit.core.records import Windows
from momalit.core.team import TeamSpec
from momalit.core.trajectories import Trajectories
from momalit.policies.team_policy import TeamPolicyModule
from momalit.training.batches import count_batches, keyed_generator, process_chunks
from momalit.training.epoch_means import Means


class OfflineLearner(TeamPolicyModule):
    """Draws windows of real trajectories, with the real steps before each as burn-in.

    The stream of an epoch depends on seed and epoch only, so that a run that is continued sees what it would have seen.
    It is the same in every process, which takes its share of each minibatch.

    Args:
        spec: the team.
    """

    title: ClassVar[str]

    def __init__(self, spec: TeamSpec | Mapping[str, Any]) -> None:
        super().__init__(spec)
        self._means = Means()

    # --- what a method says ----------------------------------------------------------------------------------------
    @property
    def training_data(self) -> Trajectories:
        """The part of the log that is learnt from."""
        return self.data.train

    @property
    def windows_per_epoch(self) -> int:
        """Number of windows, in all processes together."""
        raise NotImplementedError

    @property
    def windows_per_batch(self) -> int:
        """Number of windows in a minibatch, in all processes together."""
        raise NotImplementedError

    def starts(self, random: torch.Generator) -> Tensor:
        """The transitions ``(windows_per_epoch,)`` that windows begin with, drawn by ``random`` (a CPU's)."""
        raise NotImplementedError

    def make_batch(self, index: Tensor) -> Windows:
        """The windows that begin with transitions ``index`` ``(B,)``."""
        raise NotImplementedError

    # --- minibatches -----------------------------------------------------------------------------------------------
    def setup(self, stage: str) -> None:
        """Takes the statistics of the training split."""
        super().setup(stage)
        if stage == "fit":
            self.actor.inputs.standardizer.fit(self.data.train.state.to("cpu"))  # where this module still is

    def train_dataloader(self) -> DataLoader:
        number, _ = count_batches(self.windows_per_epoch, self.windows_per_batch, self.trainer.world_size)
        return self.stream(number, self._draw)

    def _draw(self) -> Iterator[Windows]:
        order = self.starts(keyed_generator("cpu", torch.initial_seed(), self.current_epoch, 0, 4))
        order = order.to(self.training_data.reward.device)
        for parts in process_chunks(order, self.windows_per_batch, self.trainer.world_size):
            windows = self.make_batch(parts[self.global_rank])
            if len(parts) > 1:
                # What the others' parts hold is known here too, so nothing need be exchanged.
                valid = self.training_data.remaining(parts).clamp(max=len(windows.valid)).sum(1).float()
                windows = replace(windows, weight=valid[self.global_rank] / valid.mean())
            yield windows

    def randomness(self, device: torch.device | str, purpose: int) -> torch.Generator:
        """This epoch's random numbers for one purpose in this process."""
        return keyed_generator(device, torch.initial_seed(), self.current_epoch, self.global_rank, purpose)

    # --- bookkeeping -----------------------------------------------------------------------------------------------
    def record(self, values: Mapping[str, Tensor]) -> None:
        """Adds scalars to the epoch's means, logged as ``train/<name>``."""
        self._means.add(values)

    def on_train_epoch_end(self) -> None:
        """Logs the epoch's means.

        Raises:
            FloatingPointError: one of them is not finite.
        """
        means = mean_over_processes(self._means.take())
        for name, value in means.items():
            if not bool(torch.isfinite(value)):
                raise FloatingPointError(f"{self.title}: {name} is {float(value)} in epoch {self.current_epoch}")
        self.log_synced({f"train/{name}": value for name, value in means.items()})


def require_at_least(least: float, **numbers: float) -> None:
    """Refuses settings of the model that are too small.

    Raises:
        UserError: naming the first one.
    """
    for name, number in numbers.items():
        if number < least:
            raise UserError(f"model.{name}: found {number}, expected at least {least:g}")


def require_between(low: float, high: float, **numbers: float) -> None:
    """Refuses settings of the model that are not strictly between two numbers.

    Raises:
        UserError: naming the first one.
    """
    for name, number in numbers.items():
        if not low < number < high:
            raise UserError(f"model.{name}: found {number}, expected a number between {low:g} and {high:g}")
