"""The stages before the policies as groups of settings: ``world_model:`` and ``warm_start:``."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from dataclasses import field, make_dataclass
from typing import Any, get_type_hints

import lightning.pytorch as pl
from jsonargparse import Namespace
from lightning.pytorch import seed_everything
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from datamodules.names import home
from momalit.baselines import BCModule
from momalit.cli.trainer_defaults import stage_trainer
from momalit.policies.moma_ppo import MOMAPPOModule
from momalit.training.checkpoints import read_checkpoint
from momalit.training.run_directory import RunDirectory
from momalit.training.stages import Stage, find_or_train, settings_of
from momalit.world_model.module import WorldModelModule

logger = logging.getLogger(__name__)

WORLD_MODEL = Stage("world_model", "world model", WorldModelModule, inherits=("discount",))
WARM_START = Stage(
    "warm_start", "warm start", BCModule, inherits=("width", "gru_size", "share_parameters", "initial_std", "min_std")
)


def _settings_type(name: str, stage: Stage, max_epochs: int) -> Any:
    """A dataclass of the stage's own settings, which the command line reads like any other group.

    Args:
        name: what the module variable that takes it is called: jsonargparse imports it by that name.
        stage: whose module's constructor gives names, types, defaults and descriptions.
        max_epochs: default number of epochs.
    """
    hints = get_type_hints(stage.kind.__init__)
    fields: list[tuple[str, Any, Any]] = [
        (key, hints[key], field(default=parameter.default))
        for key, parameter in inspect.signature(stage.kind).parameters.items()
        if key != "spec" and key not in stage.inherits
    ]
    made = make_dataclass(name, [*fields, ("max_epochs", int, field(default=max_epochs))])
    made.__doc__ = f"{inspect.getdoc(stage.kind)}\n    max_epochs: most passes over the data.\n"
    made.__module__ = __name__
    return made


WorldModelSettings = _settings_type("WorldModelSettings", WORLD_MODEL, 60)
WarmStartSettings = _settings_type("WarmStartSettings", WARM_START, 20)


def prepare(
    model: pl.LightningModule,
    datamodule: Any,
    config: Namespace,
    run: RunDirectory,
    ckpt_path: str | None,
) -> None:
    """Gives policies that learn in a world model what they lack; other modules need nothing.

    Args:
        model: about to be trained.
        datamodule: what it is trained on.
        config: the command's settings.
        run: its directory.
        ckpt_path: the checkpoint that training continues from, which holds the world model already.
    """
    if not isinstance(model, MOMAPPOModule):
        return
    if ckpt_path is not None:
        model.on_load_checkpoint(read_checkpoint(ckpt_path))
        return
    made = {}
    for stage, group in ((WORLD_MODEL, config["world_model"]), (WARM_START, config["warm_start"])):
        if model.hparams[stage.key] is not None:
            logger.info("%s: %s, as asked for", stage.title, model.hparams[stage.key])
        elif group is not None:
            settings = settings_of(stage, _plain(group), model.hparams)
            if config["trainer"]["fast_dev_run"]:
                settings["max_epochs"] = 1

            def make(
                own: RunDirectory, stage: Stage, module: pl.LightningModule, n: int = settings["max_epochs"]
            ) -> Any:
                return stage_trainer(config["trainer"], own, stage.title, module, n)

            made[stage.key] = find_or_train(
                stage, settings, datamodule, _seed(config), str(config["trainer"]["precision"]), run, home(), make
            )
            model.hparams[stage.key] = made[stage.key]["path"]
    if made:
        rank_zero_only(run.update)(stages=made)
        if _seed(config) is not None:  # so that a trained and a found world model give the same policies
            seed_everything(_seed(config), workers=True, verbose=False)


def _seed(config: Namespace) -> int | None:
    seed = config["seed_everything"]
    return None if seed is False else int(seed)


def _plain(group: Any) -> dict[str, Any]:
    values: Mapping[str, Any] = group.as_dict() if isinstance(group, Namespace) else group
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
