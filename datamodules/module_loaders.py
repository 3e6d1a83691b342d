"""Data loaders that come from the Lightning module instead of the data module."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningDataModule


class ModuleLoaders(LightningDataModule):
    """Returns the loaders of the Lightning module.

    Lightning takes all loaders from the data module if there is one. Here the module builds its own batches (rollouts,
    windows, bootstrap samples) from the data.
    """

    def train_dataloader(self) -> Any:
        return self._module.train_dataloader()

    def val_dataloader(self) -> Any:
        return self._module.val_dataloader()

    def test_dataloader(self) -> Any:
        return self._module.test_dataloader()

    def predict_dataloader(self) -> Any:
        return self._module.predict_dataloader()

    @property
    def _module(self) -> Any:
        assert self.trainer is not None
        return self.trainer.lightning_module
