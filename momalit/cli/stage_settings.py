"""The stages that precede policy training, as groups of settings: ``world_model:`` and ``warm_start:``."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Mapping
from dataclasses import field, make_dataclass
from typing import Any, Literal, get_type_hints

import lightning.pytorch as pl
from jsonargparse import Namespace
from lightning.pytorch import seed_everything
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from datamodules.names import home
from momalit.baselines import BCModule
from momalit.cli.trainer_defaults import stage_trainer
from momalit.policies.moma_ppo import MOMAPPOModule
from momalit.training.checkpoints import read_checkpoint
from momalit.training.forks import side_by_side
from momalit.training.run_directory import RunDirectory
from momalit.training.stages import (
    Stage,
    epochs_for,
    find_or_train,
    make_module,
    place_in_cache,
    settings_of,
)
from momalit.world_model.member_share import useful_processes
from momalit.world_model.module import WorldModelModule

logger = logging.getLogger(__name__)

_NICE = 19  # of a stage beside another one, so that it takes only what the other leaves

WORLD_MODEL = Stage(
    "world_model",
    "world model",
    WorldModelModule,
    inherits=("discount",),
    gradient_steps=10_000,
    fingerprint="dynamics_fingerprint",
)
WARM_START = Stage(
    "warm_start",
    "warm start",
    BCModule,
    inherits=("width", "gru_size", "share_parameters", "initial_std", "min_std"),
    gradient_steps=1_000,
)


def _settings_type(name: str, stage: Stage, max_epochs: int) -> Any:
    """Makes a dataclass of the stage's settings, which becomes a group of command-line options.

    Args:
        name: name of the dataclass. This module must have a variable of that name, from which jsonargparse imports it.
        stage: the stage. Its module's constructor has the names, types, defaults and descriptions of the settings.
        max_epochs: default maximum number of epochs.
    """
    hints = get_type_hints(stage.kind.__init__)
    fields: list[tuple[str, Any, Any]] = [
        (key, hints[key], field(default=parameter.default))
        for key, parameter in inspect.signature(stage.kind).parameters.items()
        if key != "spec" and key not in stage.inherits
    ]
    settings_type = make_dataclass(name, [*fields, ("max_epochs", int | Literal["auto"], field(default=max_epochs))])
    epochs = f"maximum number of epochs; auto for about {stage.gradient_steps:,} gradient steps"
    settings_type.__doc__ = f"{inspect.getdoc(stage.kind)}\n    max_epochs: {epochs}.\n"
    settings_type.__module__ = __name__
    return settings_type


WorldModelSettings = _settings_type("WorldModelSettings", WORLD_MODEL, 60)
WarmStartSettings = _settings_type("WarmStartSettings", WARM_START, 20)


def wanted_stages(model: pl.LightningModule, datamodule: Any, config: Namespace) -> list[tuple[Stage, dict[str, Any]]]:
    """Returns the stages that MOMA-PPO needs, with their settings; none for other models and for given checkpoints.

    Args:
        model: the module that is trained afterwards.
        datamodule: the data.
        config: the command's settings.

    Raises:
        UserError: a setting of a stage is invalid.
    """
    wanted: list[tuple[Stage, dict[str, Any]]] = []
    if not isinstance(model, MOMAPPOModule):
        return wanted
    for stage in (WORLD_MODEL, WARM_START):
        group = config[stage.key]
        if group is not None and model.hparams[stage.key] is None:
            settings = settings_of(stage, _plain(group), model.hparams)
            make_module(stage, settings, datamodule.spec)
            wanted.append((stage, settings))
    return wanted


def run_stages(
    wanted: list[tuple[Stage, dict[str, Any]]],
    model: pl.LightningModule,
    datamodule: Any,
    config: Namespace,
    run: RunDirectory,
    ckpt_path: str | None,
    processes: int = 1,
) -> None:
    """Trains the world model and the warm start of MOMA-PPO, or finds them in the cache. Ignores other models.

    Args:
        wanted: the stages and their settings.
        model: the module that is trained afterwards. Its hyper-parameters receive the checkpoints' paths.
        datamodule: the data.
        config: the command's settings.
        run: the run's directory.
        ckpt_path: the checkpoint that training resumes from. It contains the world model, so no stage runs.
        processes: number of processes that may train the world model.
    """
    if not isinstance(model, MOMAPPOModule):
        return
    if ckpt_path is not None:
        model.on_load_checkpoint(read_checkpoint(ckpt_path))
        return
    for stage in (WORLD_MODEL, WARM_START):
        if model.hparams[stage.key] is not None:
            logger.info("%s: using %s", stage.title, model.hparams[stage.key])
    for stage, settings in wanted:
        if config["trainer"]["fast_dev_run"]:
            settings["max_epochs"] = 1
        if settings["max_epochs"] == "auto":
            settings["max_epochs"] = epochs_for(stage, settings, datamodule.train)
            logger.info(
                "%s: %d epochs, for about %d gradient steps",
                stage.title, settings["max_epochs"], stage.gradient_steps,
            )  # fmt: skip
    first, seed, precision = os.getpid(), _seed(config), str(config["trainer"]["precision"])

    def train(stage: Stage, settings: dict[str, Any]) -> dict[str, Any]:
        trainer = config["trainer"]
        if os.getpid() != first:  # beside the world model, whose process shows how far it is
            trainer = trainer.clone()
            trainer["enable_progress_bar"] = False
            os.nice(_NICE)

        def make_trainer(stage_run: RunDirectory, stage: Stage, module: pl.LightningModule) -> pl.Trainer:
            several = _useful_processes(module, datamodule, settings, processes)
            return stage_trainer(trainer, stage_run, stage.title, module, settings["max_epochs"], several)

        return find_or_train(stage, settings, datamodule, seed, precision, run, home(), make_trainer)

    def takes_long(stage: Stage, settings: dict[str, Any]) -> bool:
        module = make_module(stage, settings, datamodule.spec)
        return _useful_processes(module, datamodule, settings, processes) > 1

    places = [place_in_cache(*stage, datamodule, seed, precision, home())[1] for stage in wanted]
    missing = [place is None or not place.is_file() for place in places]
    found: list[dict[str, Any]] = []
    if missing == [True, True] and takes_long(*wanted[0]):
        logger.info("%s: training beside the world model", wanted[1][0].title)
        world_model, others = side_by_side(lambda: train(*wanted[0]), [lambda: train(*wanted[1])], processes)
        found = [world_model, *others]
    else:
        found = [train(stage, settings) for stage, settings in wanted]
    results = {stage.key: result for (stage, _), result in zip(wanted, found, strict=True)}
    for key, result in results.items():
        model.hparams[key] = result["path"]
    if results:
        rank_zero_only(run.update)(stages=results)
        if seed is not None:  # policies must not depend on whether a stage was trained or cached
            seed_everything(seed, workers=True, verbose=False)


def _useful_processes(module: pl.LightningModule, datamodule: Any, settings: Mapping[str, Any], processes: int) -> int:
    """How many of the available processes a stage is worth."""
    if not isinstance(module, WorldModelModule):
        return 1
    return useful_processes(module.network, len(datamodule.train) * settings["max_epochs"], processes)


def _seed(config: Namespace) -> int | None:
    seed = config["seed_everything"]
    return None if seed is False else int(seed)


def _plain(group: Any) -> dict[str, Any]:
    values: Mapping[str, Any] = group.as_dict() if isinstance(group, Namespace) else group
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
