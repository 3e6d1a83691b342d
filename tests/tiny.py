"""Every kind of module, tiny, with data to train it on."""

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

SMALL = {"horizon": 10, "burn_in": 2, "width": 16, "gru_size": 16, "lr": 3e-3}
MODEL = {"n_members": 3, "n_elites": 2, "hidden_sizes": (16, 16), "lr": 3e-3, "termination": "never"}


def log() -> OfflineDataModule:
    return OfflineDataModule("icg/unfavourable", env={"observability": "own"}, transitions=1000)


def game() -> EnvironmentDataModule:
    return EnvironmentDataModule("icg", {"observability": "own"})


def weights(module: pl.LightningModule) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in module.state_dict().values()])


def make(kind: str, path: str | None = None, **settings: Any) -> tuple[Any, Any]:
    """The data and a module of its kind."""
    data = game() if kind == "mappo" else log()
    module: Any
    if kind == "world_model":
        module = WorldModelModule(data.spec, **{**MODEL, "batch_size": 64, **settings})
    elif kind == "warm_start":
        module = BCModule(data.spec, width=16, gru_size=16, window=4, burn_in=2, lr=3e-3, **settings)
    elif kind == "mappo":
        module = MAPPOModule(data.spec, **{**SMALL, "n_rollouts": 16, "horizon": 7, **settings})
    else:
        module = MOMAPPOModule(data.spec, world_model=path, **{**SMALL, "n_rollouts": 16, **settings})
    return data, module


def fit(kind: str, epochs: int, path: str | None = None, callbacks: Any = (), **settings: Any) -> Any:
    """Trains a module of its kind from seed 0; ``enable_checkpointing`` is the trainer's."""
    pl.seed_everything(0, verbose=False)
    ours = {key: settings.pop(key) for key in ("enable_checkpointing", "precision") if key in settings}
    data, module = make(kind, path, **settings)
    make_trainer(epochs, callbacks, **ours).fit(module, datamodule=data)
    return module
