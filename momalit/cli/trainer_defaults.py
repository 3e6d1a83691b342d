"""What a trainer gets unless the configuration gives its own: loggers, checkpoints, a progress bar."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, ProgressBar
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from momalit.cli.metrics_file import MetricsFile
from momalit.cli.preemption import Preemption
from momalit.cli.progress_bar import EpochProgress
from momalit.core.errors import UserError
from momalit.policies.team_policy import TeamPolicyModule
from momalit.training.run_directory import RunDirectory
from momalit.training.trainer_checks import require_kept
from momalit.world_model.module import WorldModelModule

SHARED_WITH_STAGES = ("accelerator", "devices", "strategy", "precision", "num_nodes", "deterministic")


class RunCheckpoint(ModelCheckpoint):
    """The last or the best of a run: of a kind of its own, so that configurations may add others with like settings."""


class ContinuedMetrics(Callback):
    """Continues the metrics file where the checkpoint was made: later rows are trained again."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile):
                logger.keep_until(trainer.current_epoch)


def default_loggers(run: RunDirectory) -> list[Logger]:
    """``metrics.csv`` and TensorBoard's events; no file is made before something is logged."""
    board = TensorBoardLogger(run.path, name="", version="tensorboard", default_hp_metric=False)
    return [MetricsFile(run.path / "metrics.csv"), board]


def monitor_of(model: pl.LightningModule) -> tuple[str, str]:
    """What the best checkpoint is chosen by, and whether more (``max``) or less (``min``) of it is better."""
    if isinstance(model, WorldModelModule):
        return "val/error", "min"
    return "eval/return", "max"


def default_callbacks(
    run: RunDirectory, title: str, monitor: tuple[str, str] | None, progress: bool = True, keep: bool = True
) -> list[Callback]:
    """Checkpoints, progress bar and bookkeeping.

    Args:
        run: the run's directory.
        title: what is trained, for people.
        monitor: metric and mode of the best checkpoint; None keeps the last one only.
        progress: whether there is a progress bar.
        keep: whether there are checkpoints.
    """
    checkpoints = []
    if keep and monitor:  # first, so that the last one stores what the best is
        checkpoints.append(_checkpoint(run.checkpoints, "best", *monitor))
    if keep:
        checkpoints.append(_checkpoint(run.checkpoints, "last", None, "min"))
    bar = [EpochProgress(title, *(monitor or (None, "min")))] if progress else []
    return [ContinuedMetrics(), *bar, Preemption(), *checkpoints]


def drop_replaced(chosen: list[Callback], defaults: list[Callback]) -> list[Callback]:
    """The defaults whose place the configuration has not taken.

    A progress bar takes the place of ours, and a checkpoint that watches a metric that of the best. The last one stays,
    which an interrupted run goes on from.
    """
    bar = any(isinstance(callback, ProgressBar) for callback in chosen)
    best = any(isinstance(callback, ModelCheckpoint) and callback.monitor for callback in chosen)
    return [
        callback
        for callback in defaults
        if not (bar and isinstance(callback, ProgressBar))
        and not (best and isinstance(callback, ModelCheckpoint) and callback.monitor)
    ]


def stage_trainer(
    trainer: Mapping[str, Any], run: RunDirectory, title: str, model: pl.LightningModule, max_epochs: int
) -> pl.Trainer:
    """A trainer for a stage, on the same devices and in the same precision as the policies'.

    Args:
        trainer: the settings of the policies' trainer.
        run: the stage's own directory.
        title: what is trained, for people.
        model: what is trained.
        max_epochs: most epochs.
    """
    monitor = None if isinstance(model, TeamPolicyModule) else monitor_of(model)
    progress = trainer["enable_progress_bar"] is not False
    return pl.Trainer(
        **_shared(trainer),
        default_root_dir=run.path,
        max_epochs=max_epochs,
        logger=default_loggers(run),
        callbacks=default_callbacks(run, title, monitor, progress),
        enable_progress_bar=progress,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def require_devices(trainer: Mapping[str, Any]) -> None:
    """Refuses devices that are not there and number formats that they lack, before anything is made for them.

    Args:
        trainer: the settings of the policies' trainer.

    Raises:
        UserError: with Lightning's reason.
    """
    try:
        tried = pl.Trainer(
            **_shared(trainer), logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"trainer: {error}") from error
    require_kept(trainer["precision"], str(tried.precision))


def _shared(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """What the trainers of all stages have in common."""
    return {key: _made(key, trainer[key]) for key in SHARED_WITH_STAGES if trainer[key] is not None}


def _made(key: str, setting: Any) -> Any:
    """The setting itself, or an object of its own where a class is configured (a strategy serves one trainer only)."""
    if not isinstance(setting, Namespace):
        return setting
    parser = ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(pl.Trainer.__init__, skip={"self"})
    return parser.instantiate(Namespace(**{key: setting}))[key]


def _checkpoint(directory: Path, name: str, monitor: str | None, mode: str) -> RunCheckpoint:
    return RunCheckpoint(
        directory,
        filename=name,
        monitor=monitor,
        mode=mode,
        save_top_k=1,
        save_on_train_epoch_end=True,  # after the epoch's validation, when the epoch is complete
        enable_version_counter=False,
    )
