"""Small modules of every kind, with data to train them."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch

from datamodules import EnvironmentDataModule, OfflineDataModule
from momalit.baselines import BCModule
from momalit.policies.mappo import MAPPOModule
from momalit.policies.moma_ppo import MOMAPPOModule
from momalit.world_model.module import WorldModelModule
from tests.processes import make_trainer

SMALL = {"horizon": 10, "width": 16, "gru_size": 16, "lr": 3e-3}
TRAINER = ("enable_checkpointing", "precision", "strategy", "devices")
WORLD_MODEL = {"n_members": 3, "n_elites": 2, "width": 16, "n_blocks": 1, "lr": 3e-3, "termination": "never"}


def offline_data() -> OfflineDataModule:
    """Returns a small dataset of the coordination game with ``own`` observability."""
    return OfflineDataModule("icg/unfavourable", env={"observability": "own"}, transitions=1000)


def environment_data() -> EnvironmentDataModule:
    """Returns the environment of that dataset, for on-policy training."""
    return EnvironmentDataModule("icg", {"observability": "own"})


def flat_weights(module: pl.LightningModule) -> torch.Tensor:
    """Returns the module's state dict as one float64 vector."""
    return torch.cat([value.flatten().double() for value in module.state_dict().values()])


def make_data_and_module(kind: str, path: str | None = None, **settings: Any) -> tuple[Any, Any]:
    """Returns a data module and a small module of the given kind."""
    data = environment_data() if kind == "mappo" else offline_data()
    module: Any
    if kind == "world_model":
        module = WorldModelModule(data.spec, **{**WORLD_MODEL, "batch_size": 64, **settings})
    elif kind == "warm_start":
        module = BCModule(data.spec, width=16, gru_size=16, window=4, burn_in=2, lr=3e-3, **settings)
    elif kind == "mappo":
        module = MAPPOModule(data.spec, **{**SMALL, "n_rollouts": 16, "horizon": 7, **settings})
    else:
        module = MOMAPPOModule(data.spec, world_model=path, **{**SMALL, "n_rollouts": 16, **settings})
    return data, module


def fit(kind: str, epochs: int, path: str | None = None, callbacks: Any = (), **settings: Any) -> Any:
    """Trains a small module of the given kind with seed 0. Trainer and module settings are in ``settings``."""
    pl.seed_everything(0, verbose=False)
    trainer = {key: settings.pop(key) for key in TRAINER if key in settings}
    data, module = make_data_and_module(kind, path, **settings)
    make_trainer(epochs, callbacks, **trainer).fit(module, datamodule=data)
    return module
