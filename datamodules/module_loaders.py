"""Loaders: the module knows what it trains on, a data module what there is."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningDataModule


class ModuleLoaders(LightningDataModule):
    """Asks the training module for every loader.

    Lightning takes all loaders from the data module once there is one, while here batches are made of what the module
    does with the data (rollouts, windows, bootstrap samples).
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
