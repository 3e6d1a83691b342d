"""Default loggers, checkpoints and progress bar of a trainer. Those in the configuration replace them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, ProgressBar
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from momalit.cli.best_estimate import BestEstimate, RunCheckpoint
from momalit.cli.metrics_file import MetricsFile
from momalit.cli.preemption import Preemption
from momalit.cli.progress_bar import EpochProgress
from momalit.core.errors import UserError
from momalit.policies.moma_ppo import MOMAPPOModule
from momalit.policies.team_policy import TeamPolicyModule
from momalit.training.checkpoints import BEST, LAST, CheckpointFiles
from momalit.training.forked_ddp import ForkedDDP
from momalit.training.run_directory import RunDirectory
from momalit.training.trainer_checks import require_float64, require_precision_on_device
from momalit.world_model.module import WorldModelModule

logger = logging.getLogger(__name__)

ESTIMATE = "eval/estimate"
SHARED_WITH_STAGES = ("accelerator", "devices", "strategy", "precision", "num_nodes", "deterministic")


class ResumeMetricsFile(Callback):
    """Removes the rows of ``metrics.csv`` after the checkpoint when training starts; those epochs are trained again."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile):
                logger.truncate(trainer.current_epoch)


def default_loggers(run: RunDirectory) -> list[Logger]:
    """Returns the loggers for ``metrics.csv`` and TensorBoard. They create files when something is logged."""
    tensorboard = TensorBoardLogger(run.path, name="", version="tensorboard", default_hp_metric=False)
    return [MetricsFile(run.path / "metrics.csv"), tensorboard]


def monitor_of(model: pl.LightningModule, plays: bool = True) -> tuple[str, str] | None:
    """Returns the metric of the best checkpoint, and whether it is maximised (``max``) or minimised (``min``).

    Args:
        model: the module that is trained.
        plays: whether the team is evaluated in a real environment. Without one, and without a world model, there is no
            best checkpoint: None.
    """
    if isinstance(model, WorldModelModule):
        return "val/error", "min"
    if isinstance(model, MOMAPPOModule):
        return ESTIMATE, "max"  # the world model selects, not the real environment
    return ("eval/return", "max") if plays else None


def default_callbacks(
    run: RunDirectory, title: str, monitor: tuple[str, str] | None, progress: bool = True, save: bool = True
) -> list[Callback]:
    """Returns the callbacks for checkpoints, progress bar, preemption and the metrics file.

    Args:
        run: the run's directory.
        title: name of what is trained, shown by the progress bar.
        monitor: metric and mode of the best checkpoint. None saves only the last checkpoint.
        progress: whether to show a progress bar.
        save: whether to save checkpoints.
    """
    checkpoints = []
    if save and monitor:  # before "last", so that last.ckpt contains the up-to-date state of "best"
        checkpoints.append(_checkpoint(run.checkpoints, BEST, *monitor))
    if save:
        checkpoints.append(_checkpoint(run.checkpoints, LAST, None, "min"))
    bar = [EpochProgress(title, *(monitor or (None, "min")))] if progress else []
    return [ResumeMetricsFile(), *bar, Preemption(), *checkpoints]


def drop_replaced(configured: list[Callback], defaults: list[Callback]) -> list[Callback]:
    """Returns the default callbacks that the configured callbacks do not replace.

    A configured progress bar replaces the default one. A configured ModelCheckpoint with a monitored metric replaces
    the best checkpoint. The last checkpoint is never replaced, because an interrupted run resumes from it.
    """
    has_bar = any(isinstance(callback, ProgressBar) for callback in configured)
    has_best = any(isinstance(callback, ModelCheckpoint) and callback.monitor for callback in configured)
    return [
        callback
        for callback in defaults
        if not (has_bar and isinstance(callback, ProgressBar))
        and not (has_best and isinstance(callback, ModelCheckpoint) and callback.monitor)
    ]


def stage_trainer(
    trainer: Mapping[str, Any],
    run: RunDirectory,
    title: str,
    model: pl.LightningModule,
    max_epochs: int,
    processes: int = 1,
) -> pl.Trainer:
    """Makes a trainer for a stage, with the same devices and precision as the policies' trainer.

    Args:
        trainer: the settings of the policies' trainer.
        run: the stage's directory.
        title: name of what is trained, shown by the progress bar.
        model: the module that is trained.
        max_epochs: maximum number of epochs.
        processes: with more than 1, this machine's cores train the model, whatever strategy the policies have.
    """
    strategy = {"strategy": ForkedDDP(processes), "devices": processes} if processes > 1 else {}
    monitor = None if isinstance(model, TeamPolicyModule) else monitor_of(model)
    progress = trainer["enable_progress_bar"] is not False
    return pl.Trainer(
        **{**_shared_settings(trainer), **strategy},
        default_root_dir=run.path,
        plugins=[CheckpointFiles()],
        max_epochs=max_epochs,
        logger=default_loggers(run),
        callbacks=default_callbacks(run, title, monitor, progress),
        enable_progress_bar=progress,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def require_devices(trainer: MutableMapping[str, Any]) -> torch.device:
    """Rejects devices that do not exist and precisions that they do not support, before the run directory is created.

    Args:
        trainer: the settings of the policies' trainer. ``accelerator: auto`` becomes ``cpu`` where the only GPU cannot
            be used.

    Returns:
        the first device.

    Raises:
        UserError: a setting is not supported. The message has Lightning's reason.
    """
    try:
        trial = pl.Trainer(
            **_shared_settings(trainer), logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"trainer: {error}") from error
    if trial.strategy.root_device.type == "mps" and trainer["accelerator"] == "auto":
        logger.info("trainer.accelerator: using cpu, since Apple GPUs have no 64-bit floats")
        trainer["accelerator"] = "cpu"
        return require_devices(trainer)
    require_float64(trial.strategy.root_device)
    require_precision_on_device(trainer["precision"], str(trial.precision))
    return trial.strategy.root_device


def _shared_settings(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments that the trainers of all stages share."""
    return {key: _instantiate(key, trainer[key]) for key in SHARED_WITH_STAGES if trainer[key] is not None}


def _instantiate(key: str, setting: Any) -> Any:
    """Returns the setting, or a new object if it configures a class: a strategy works with one trainer only."""
    if not isinstance(setting, Namespace):
        return setting
    parser = ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(pl.Trainer.__init__, skip={"self"})
    return parser.instantiate(Namespace(**{key: setting}))[key]


def _checkpoint(directory: Path, name: str, monitor: str | None, mode: str) -> RunCheckpoint:
    kind = BestEstimate if monitor == ESTIMATE else RunCheckpoint
    return kind(
        directory,
        filename=name,
        monitor=monitor,
        mode=mode,
        save_top_k=1,
        save_on_train_epoch_end=True,  # the epoch is complete and its validation is done
        enable_version_counter=False,
    )
