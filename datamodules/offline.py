"""The offline data module: a fixed dataset, split by whole trajectories."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datamodules.builders.collect import collect
from datamodules.module_loaders import ModuleLoaders
from datamodules.names import is_name
from datamodules.readers.team_dataset import Dataset, read_dataset
from momalit.core.errors import UserError
from momalit.core.team import TeamSpec
from momalit.core.trajectories import Trajectories


class OfflineDataModule(ModuleLoaders):
    """A dataset by name or path. Nothing is read or made before an attribute asks for it.

    Args:
        dataset: a built-in name such as ``icg/unfavourable``, made on first use, or the path of an HDF5 file or a
            Minari dataset's directory.
        env: settings of the task; for a dataset of one's own, ``name`` and settings of its environment.
        transitions: least number of transitions of a built-in dataset; None for the task's default.
        dataset_seed: seed that a built-in dataset is made from.
        validation_fraction: share of the trajectories held out for validation, in [0, 1).
        test_fraction: share of the trajectories held out for testing, in [0, 1).
        split_seed: seed of the split.
        keep_on_device: keep the training split on the accelerator, so that batches are drawn there; None does so where
            it takes up to a quarter of the free memory. On the CPU it makes no difference.

    Raises:
        UserError: a fraction is outside its range.
    """

    def __init__(
        self,
        dataset: str,
        env: dict[str, Any] | None = None,
        transitions: int | None = None,
        dataset_seed: int = 0,
        validation_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        keep_on_device: bool | None = None,
    ) -> None:
        super().__init__()
        fractions = {"validation_fraction": validation_fraction, "test_fraction": test_fraction}
        for key, value in fractions.items():
            if not 0 <= value < 1:
                raise UserError(f"data.{key}: found {value!r}, expected a number from 0 to below 1")
        if validation_fraction + test_fraction >= 1:
            raise UserError(
                f"data.validation_fraction + data.test_fraction: found {validation_fraction + test_fraction:g},"
                " expected less than 1"
            )
        self.dataset, self.env = str(dataset), dict(env or {})
        self.transitions, self.dataset_seed, self.split_seed = transitions, dataset_seed, split_seed
        self.validation_fraction, self.test_fraction = validation_fraction, test_fraction
        self.keep_on_device = keep_on_device

    @cached_property
    def contents(self) -> Dataset:
        """The whole dataset, made first if it is a built-in one that is missing."""
        if not is_name(self.dataset):
            return read_dataset(self.dataset, self.env, self._arrange)
        return read_dataset(collect(self.dataset, self.env, self.transitions, self.dataset_seed), arrange=self._arrange)

    @property
    def spec(self) -> TeamSpec:
        """The team."""
        return self.contents.spec

    @property
    def path(self) -> Path:
        """The HDF5 file."""
        return self.contents.path

    @property
    def provenance(self) -> dict[str, Any]:
        """What the dataset says about its origin."""
        return self.contents.provenance

    @property
    def trajectories(self) -> Trajectories:
        """All trajectories in the order of the file, in memory of their own."""
        return self.contents.trajectories.select(self._in_file)

    @property
    def returns(self) -> Tensor:
        """Undiscounted return of every trajectory, ``(E,)``, in the order of the file."""
        return self.contents.trajectories.returns[self._in_file]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hex, of the contents and of how they are split."""
        split = [self.validation_fraction, self.test_fraction, self.split_seed]
        return hashlib.sha256(json.dumps([self.contents.sha256, split]).encode()).hexdigest()

    @cached_property
    def train(self) -> Trajectories:
        """Trajectories to learn from."""
        return self._part("train")

    def to_device(self, device: torch.device) -> None:
        """Moves the training split to where it is drawn from, if it shall be and can be there."""
        if device.type != "cpu" and (self._fits(device) if self.keep_on_device is None else self.keep_on_device):
            self.__dict__["train"] = self.train.to(device)

    def _fits(self, device: torch.device) -> bool:
        if device.type != "cuda":
            return False  # the free memory of others is not known
        return self.train.n_bytes <= torch.cuda.mem_get_info(device)[0] / 4

    @cached_property
    def validation(self) -> Trajectories:
        """Trajectories to choose between models with."""
        return self._part("validation")

    @cached_property
    def test(self) -> Trajectories:
        """Trajectories that nothing is chosen with."""
        return self._part("test")

    # --- the split -------------------------------------------------------------------------------------------------
    def _sizes(self, n: int) -> dict[str, int]:
        """Numbers of trajectories in every part, of ``n`` in all."""
        validation, test = _share(self.validation_fraction, n), _share(self.test_fraction, n)
        return {"validation": validation, "test": test, "train": n - validation - test}

    def _arrange(self, n: int) -> list[int]:
        """The order of ``n`` trajectories in memory: part after part, so that none need be copied, each rising."""
        sizes = self._sizes(n)
        if sizes["train"] < 1:  # refused by whoever asks for a part
            return list(range(n))
        order = torch.randperm(n, generator=torch.Generator().manual_seed(self.split_seed))
        return torch.cat([part.sort().values for part in order.split(list(sizes.values()))]).tolist()

    @property
    def _in_file(self) -> Tensor:
        """Where the file's trajectories lie in memory, ``(E,)``."""
        return torch.tensor(self.contents.order).argsort()

    def _part(self, name: str) -> Trajectories:
        """One part, a view of the memory of all.

        Raises:
            UserError: there are not enough trajectories for all parts.
        """
        everything = self.contents.trajectories
        sizes = self._sizes(len(everything.lengths))
        if sizes["train"] < 1:
            raise UserError(
                f"{self.path}: found {sum(sizes.values())} trajectories, expected enough for {sizes['validation']} to"
                f" validate with, {sizes['test']} to test with and at least 1 to train on"
            )
        begin = 0
        for part, size in sizes.items():
            if part == name:
                break
            begin += size
        return everything.span(begin, begin + size)


def _share(fraction: float, n: int) -> int:
    """A fraction of n trajectories, at least one unless the fraction is zero."""
    return max(1, round(fraction * n)) if fraction > 0 else 0
