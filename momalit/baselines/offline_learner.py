"""Base class of the baselines, which learn from minibatches of trajectory windows from the dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from momalit.core.distributed import mean_over_processes
from momalit.core.records import Windows
from momalit.core.team import TeamSpec
from momalit.core.trajectories import Trajectories
from momalit.policies.team_policy import TeamPolicyModule
from momalit.training.batches import count_batches, keyed_generator, process_chunks
from momalit.training.epoch_means import Means


class OfflineLearner(TeamPolicyModule):
    """Samples windows of real trajectories, each with the preceding real steps as burn-in.

    The minibatches of an epoch depend only on the seed and the epoch, so a resumed run gets the same minibatches as an
    uninterrupted one. All ranks sample the same minibatches, and each rank processes its own part of every minibatch.

    Args:
        spec: the team.
    """

    title: ClassVar[str]
    window_length: int  # steps of a window, set by each method

    def __init__(self, spec: TeamSpec | Mapping[str, Any]) -> None:
        super().__init__(spec)
        self._means = Means()

    # --- defined by each method ------------------------------------------------------------------------------------
    @property
    def training_data(self) -> Trajectories:
        """The trajectories to learn from."""
        return self.data.train

    @property
    def windows_per_epoch(self) -> int:
        """Number of windows per epoch, over all processes."""
        raise NotImplementedError

    @property
    def windows_per_batch(self) -> int:
        """Number of windows per minibatch, over all processes."""
        raise NotImplementedError

    def sample_windows(self, generator: torch.Generator) -> Tensor:
        """Samples the numbers of an epoch's windows, ``(windows_per_epoch,)``, with a CPU generator.

        They are those of ``Trajectories.locate_windows``.
        """
        raise NotImplementedError

    def make_batch(self, index: Tensor, missing: Tensor) -> Windows:
        """Returns the windows that start at the transitions ``index`` and lack their last steps, both ``(B,)``."""
        raise NotImplementedError

    # --- minibatches -----------------------------------------------------------------------------------------------
    def setup(self, stage: str) -> None:
        """Computes the statistics of the training split."""
        super().setup(stage)
        if stage == "fit":
            self.actor.inputs.standardizer.fit(self.data.train.state.to("cpu"))  # the module is still on the CPU

    def train_dataloader(self) -> DataLoader:
        number, _ = count_batches(self.windows_per_epoch, self.windows_per_batch, self.trainer.world_size)
        return self.stream(number, self._batches)

    def _batches(self) -> Iterator[Windows]:
        data, length = self.training_data, self.window_length
        order = self.sample_windows(keyed_generator("cpu", torch.initial_seed(), self.current_epoch, 0, 4))
        order = order.to(data.reward.device)
        for parts in process_chunks(order, self.windows_per_batch, self.trainer.world_size):
            index, missing = data.locate_windows(parts, length)
            windows = self.make_batch(index[self.global_rank], missing[self.global_rank])
            if len(parts) > 1:
                # This rank can count the valid steps of all ranks itself, so no communication is needed.
                valid = data.remaining(index).minimum(length - missing).sum(1).float()
                windows = replace(windows, weight=valid[self.global_rank] / valid.mean())
            yield windows

    def epoch_generator(self, device: torch.device | str, purpose: int) -> torch.Generator:
        """Returns a generator seeded for the current epoch, this rank and one purpose."""
        return keyed_generator(device, torch.initial_seed(), self.current_epoch, self.global_rank, purpose)

    # --- metrics ---------------------------------------------------------------------------------------------------
    def record(self, values: Mapping[str, Tensor]) -> None:
        """Adds scalars to the epoch's means, which are logged as ``train/<name>``."""
        self._means.add(values)

    def on_train_epoch_end(self) -> None:
        """Logs the epoch's means.

        Raises:
            DivergedError: one of them is not finite.
        """
        means = mean_over_processes(self._means.take())
        self.require_finite(means)
        self.log_synced({f"train/{name}": value for name, value in means.items()})
