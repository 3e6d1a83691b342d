"""The offline data module: a fixed dataset, split into whole trajectories for training, validation and test."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.builders.collect import collect, spec_to_collect
from datamodules.module_loaders import ModuleLoaders
from datamodules.names import is_name
from datamodules.readers.team_dataset import Dataset, contents_hash, read_dataset
from momalit.core.checks import require_choice, require_integers, require_numbers
from momalit.core.errors import UserError
from momalit.core.symmetries import Symmetries
from momalit.core.team import TeamSpec
from momalit.core.trajectories import Trajectories
from momalit.envs.symmetries import symmetries_named

logger = logging.getLogger(__name__)

RANDOM = "random"
TEST_SPLITS = (RANDOM, "best", "middle", "worst")


class OfflineDataModule(ModuleLoaders):
    """A dataset, given by name or path. It is read or generated on first access.

    Args:
        dataset: a built-in name such as ``icg/unfavourable``, or the path of an HDF5 file or of a Minari dataset's
            directory.
        env: settings of a built-in task; for a user's own dataset, ``name`` and settings of its environment.
        transitions: minimum number of transitions of a built-in dataset; None for the task's default.
        dataset_seed: seed of a built-in dataset.
        behaviour: settings of what plays a built-in dataset, e.g. ``{"mixed": 0.3}`` for ``icg/conflicting``; None for
            that dataset's own.
        validation_fraction: fraction of the trajectories held out for validation, in [0, 1).
        test_fraction: fraction of the trajectories held out for testing, in [0, 1).
        test_split: which trajectories are held out for testing: ``random`` ones, or those with the ``best``, the
            ``middle`` or the ``worst`` returns, as a behaviour that training and validation do not know.
        split_seed: seed of the split.
        symmetries: symmetries of the task, through which the world model sees the data as more than they are:
            ``declared`` for those of the environment, ``module:name`` for one's own functions, or None for none; see
            ``momalit.envs.symmetries``.
        keep_on_device: keep the training split on the accelerator and sample batches there. None does so on CUDA if
            the split takes at most a quarter of the free memory. It has no effect on the CPU.

    Raises:
        UserError: a fraction or a seed is outside its range, or ``test_split`` is unknown.
    """

    def __init__(
        self,
        dataset: str,
        env: dict[str, Any] | None = None,
        transitions: int | None = None,
        dataset_seed: int = 0,
        behaviour: dict[str, Any] | None = None,
        validation_fraction: float = 0.1,
        test_fraction: float = 0.1,
        test_split: str = RANDOM,
        split_seed: int = 0,
        symmetries: str | None = None,
        keep_on_device: bool | None = None,
    ) -> None:
        super().__init__()
        fractions = {"validation_fraction": validation_fraction, "test_fraction": test_fraction}
        require_numbers("data.", fractions, least=0, below=1)
        require_integers("data.", {"dataset_seed": dataset_seed, "split_seed": split_seed}, least=0)
        if validation_fraction + test_fraction >= 1:
            raise UserError(
                f"data.validation_fraction + data.test_fraction: found {validation_fraction + test_fraction:g},"
                " expected less than 1"
            )
        require_choice("data.test_split", test_split, TEST_SPLITS)
        self.test_split = test_split
        self.dataset, self.env, self.behaviour = str(dataset), dict(env or {}), dict(behaviour or {})
        self.transitions, self.dataset_seed, self.split_seed = transitions, dataset_seed, split_seed
        self.validation_fraction, self.test_fraction = validation_fraction, test_fraction
        self.keep_on_device = keep_on_device
        self._symmetries = symmetries

    @cached_property
    def contents(self) -> Dataset:
        """The whole dataset. A built-in dataset that does not exist yet is generated first."""
        if not is_name(self.dataset):
            if self.behaviour:
                raise UserError(
                    f"data.behaviour: found {self.behaviour!r} beside the file {self.dataset}, expected none: it makes"
                    " built-in datasets"
                )
            return read_dataset(self.dataset, self.env, self._memory_order)
        directory = collect(self.dataset, self.env, self.transitions, self.dataset_seed, behaviour=self.behaviour)
        return read_dataset(directory, episode_order=self._memory_order, may_import=True)

    @property
    def spec(self) -> TeamSpec:
        """The team's specification. It is known before a built-in dataset is collected."""
        return self._spec_to_collect or self.contents.spec

    @cached_property
    def _spec_to_collect(self) -> TeamSpec | None:
        if "contents" in self.__dict__ or not is_name(self.dataset):
            return None
        return spec_to_collect(self.dataset, self.env, self.transitions, self.dataset_seed, self.behaviour)

    @property
    def path(self) -> Path:
        """Path of the HDF5 file."""
        return self.contents.path

    @property
    def provenance(self) -> dict[str, Any]:
        """Origin of the dataset, according to its metadata."""
        return self.contents.provenance

    @property
    def trajectories(self) -> Trajectories:
        """A copy of all trajectories, in the order of the file."""
        return self.contents.trajectories.select(self._positions)

    @property
    def returns(self) -> Tensor:
        """Undiscounted return of each trajectory, ``(E,)``, in the order of the file."""
        return self.contents.trajectories.returns[self._positions]

    @property
    def known_returns(self) -> Tensor:
        """The returns without those of a behaviour that is held out for testing (``test_split``)."""
        if self.test_split == RANDOM:
            return self.returns
        return torch.cat([self.train.returns, self.validation.returns])

    @cached_property
    def symmetries(self) -> Symmetries | None:
        """The symmetries through which the world model sees the data; None for none."""
        if self._symmetries is None:
            return None
        found = symmetries_named(self._symmetries, self.spec)
        logger.info("data.symmetries: %s, which amount to %d maps", self._symmetries, len(found))
        return found

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hex, of the contents and the split settings."""
        return self._with_split(self.contents.sha256)

    @cached_property
    def dynamics_fingerprint(self) -> str:
        """The same without who observes what, which world models do not depend on, but with the symmetries."""
        data = self.contents
        digest = self._with_split(contents_hash(data.spec.dynamics(), data.trajectories, data.order))
        if self.symmetries is None:
            return digest
        return hashlib.sha256(f"{digest} {self.symmetries.sha256}".encode()).hexdigest()

    def _with_split(self, digest: str) -> str:
        split: list[Any] = [self.validation_fraction, self.test_fraction, self.split_seed]
        split += [] if self.test_split == RANDOM else [self.test_split]
        return hashlib.sha256(json.dumps([digest, split]).encode()).hexdigest()

    @cached_property
    def train(self) -> Trajectories:
        """The training split."""
        return self._split("train")

    def to_device(self, device: torch.device) -> None:
        """Moves the training split to ``device`` if ``keep_on_device`` allows it."""
        if device.type != "cpu" and (self._fits_on(device) if self.keep_on_device is None else self.keep_on_device):
            self.__dict__["train"] = self.train.to(device)

    def _fits_on(self, device: torch.device) -> bool:
        if device.type != "cuda":
            return False  # the free memory of other devices is unknown
        return self.train.n_bytes <= torch.cuda.mem_get_info(device)[0] / 4

    @cached_property
    def validation(self) -> Trajectories:
        """The validation split, for model selection."""
        return self._split("validation")

    @cached_property
    def test(self) -> Trajectories:
        """The test split, which model selection never uses."""
        return self._split("test")

    # --- the split -------------------------------------------------------------------------------------------------
    def _split_sizes(self, n: int) -> dict[str, int]:
        """Number of trajectories in each split, given ``n`` in total."""
        validation, test = _held_out(self.validation_fraction, n), _held_out(self.test_fraction, n)
        return {"validation": validation, "test": test, "train": n - validation - test}

    def _memory_order(self, n: int, returns: Callable[[], np.ndarray]) -> list[int]:
        """Order of ``n`` trajectories in memory: split by split, so that splits are views; ascending within a split."""
        sizes = self._split_sizes(n)
        if sizes["train"] < 1:  # access to a split raises the error
            return list(range(n))
        seed = self.split_seed % 2**64  # PyTorch takes no larger one
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        if self.test_split != RANDOM:
            ranked, spare = torch.from_numpy(returns()).argsort(stable=True), n - sizes["test"]
            begin = {"worst": 0, "middle": spare // 2, "best": spare}[self.test_split]
            test = ranked[begin : begin + sizes["test"]]
            known = order[~torch.isin(order, test)]
            order = torch.cat([known[: sizes["validation"]], test, known[sizes["validation"] :]])
        return torch.cat([numbers.sort().values for numbers in order.split(list(sizes.values()))]).tolist()

    @property
    def _positions(self) -> Tensor:
        """Position in memory of each trajectory of the file, ``(E,)``."""
        return torch.tensor(self.contents.order).argsort()

    def _split(self, name: str) -> Trajectories:
        """One split, as a view of the whole dataset.

        Raises:
            UserError: there are not enough trajectories for all splits.
        """
        whole = self.contents.trajectories
        sizes = self._split_sizes(len(whole.lengths))
        if sizes["train"] < 1:
            raise UserError(
                f"{self.path}: found {sum(sizes.values())} trajectories, expected at least"
                f" {sizes['validation']} for validation, {sizes['test']} for testing and 1 for training"
            )
        begin = 0
        for split, size in sizes.items():
            if split == name:
                break
            begin += size
        return whole.span(begin, begin + size)


def _held_out(fraction: float, n: int) -> int:
    """Number of trajectories in a fraction of ``n``: at least 1 unless the fraction is zero."""
    return max(1, round(fraction * n)) if fraction > 0 else 0
