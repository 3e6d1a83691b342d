"""Checkpoints on the command line: finds the file, and combines its settings with the configured ones."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from momalit.cli.error_messages import class_settings
from momalit.core.errors import UserError
from momalit.training.checkpoints import BEST, LAST, PREVIOUS, read_checkpoint
from momalit.training.run_directory import RunDirectory

logger = logging.getLogger(__name__)

CHECKPOINT_NAMES = (LAST, BEST, PREVIOUS)
IGNORED_SETTINGS = ("spec", "world_model", "warm_start")  # given by the data, and files that may be gone


def option_value(arguments: Sequence[str], name: str) -> str | None:
    """Returns the value of ``--name VALUE`` or ``--name=VALUE``, or None. The last occurrence counts."""
    value = None
    for position, argument in enumerate(arguments):
        if argument == f"--{name}" and position + 1 < len(arguments):
            value = arguments[position + 1]
        elif argument.startswith(f"--{name}="):
            value = argument.partition("=")[2]
    return value


def resolve_checkpoint(ckpt_path: str, run: RunDirectory | None, may_be_missing: bool = False) -> str | None:
    """Returns the path of the checkpoint that ``--ckpt_path`` names.

    Args:
        ckpt_path: a path, or ``last``, ``best`` or ``previous`` (the one before ``last``) of the run.
        run: the run of ``--run_dir``.
        may_be_missing: whether to return None for a run that was interrupted before its first checkpoint.

    Raises:
        UserError: there is no such file.
    """
    if ckpt_path in CHECKPOINT_NAMES:
        if run is None:
            raise UserError(f"--ckpt_path: found '{ckpt_path}' without a run, expected --run_dir DIR as well")
        path = run.checkpoint(ckpt_path)
        if path.is_file():
            return str(path)
        if may_be_missing and run.record:
            return None
        raise UserError(f"--ckpt_path: found no {path}, expected the directory of a run that has saved a checkpoint")
    if not Path(ckpt_path).is_file():
        near = difflib.get_close_matches(ckpt_path, CHECKPOINT_NAMES, n=1)
        hint = f"did you mean {near[0]}?" if near else "expected a checkpoint's path, last, best or previous"
        raise UserError(f"--ckpt_path: found no file '{ckpt_path}', {hint}")
    return ckpt_path


def stored_settings(path: str, class_path: str) -> dict[str, Any]:
    """Returns the model's settings in a checkpoint.

    Args:
        path: the checkpoint.
        class_path: the configured model class.

    Raises:
        UserError: the checkpoint cannot be read or belongs to another class.
    """
    content = read_checkpoint(path)
    method = content.get("momalit", {}).get("method")
    configured = class_path.rpartition(".")[2]
    if method is not None and method != configured:
        raise UserError(f"--ckpt_path: {path} is a checkpoint of {method}, expected one of {configured}")
    stored = {key: value for key, value in content.get("hyper_parameters", {}).items() if not key.startswith("_")}
    unknown = sorted(set(stored) - {"spec", *class_settings(class_path)})
    if unknown:
        raise UserError(
            f"--ckpt_path: {path} is a checkpoint of another method, which has {', '.join(unknown[:3])}; expected one"
            f" of {configured}"
        )
    return {key: value for key, value in stored.items() if key not in IGNORED_SETTINGS}


def given_on_command_line(arguments: Sequence[str], group: str = "model") -> set[str]:
    """Returns the names of the settings of ``group`` on the command line, e.g. ``pessimism.lambda_all``."""
    names = set()
    for argument in arguments:
        if argument.startswith(f"--{group}."):
            names.add(argument.partition("=")[0].removeprefix(f"--{group}.").removeprefix("init_args."))
    return names


def overrides(configured: Mapping[str, Any], stored: Mapping[str, Any], given: set[str]) -> dict[str, Any]:
    """Returns the configured settings that the checkpoint overrides, and logs each difference in one line.

    The command line overrides the checkpoint. The checkpoint overrides configuration files and defaults.

    Args:
        configured: the model's settings after parsing.
        stored: the settings in the checkpoint.
        given: names of the settings given on the command line.

    Returns:
        the settings to change and their new values, nested as in ``configured``.
    """
    changes: dict[str, Any] = {}
    flat_stored, flat_configured = _flatten(stored), _flatten(configured)
    for name, value in flat_stored.items():
        if name.partition(".")[0] not in configured or (
            name in flat_configured and _equal(flat_configured[name], value)
        ):
            continue
        if name in given or name.partition(".")[0] in given:
            logger.info("model.%s: %s from the command line (checkpoint: %s)", name, flat_configured.get(name), value)
        else:
            if name in flat_configured:
                logger.info("model.%s: %s from the checkpoint (configuration: %s)", name, value, flat_configured[name])
            _set(changes, name, value)
    return changes


def changes_learning_rates(configured: Mapping[str, Any], stored: Mapping[str, Any], given: set[str]) -> bool:
    """Whether the command line changes a learning rate of the checkpoint."""
    return any(name.split("_")[-1] == "lr" and configured.get(name) != stored.get(name) for name in given)


class ReplaceLearningRates(Callback):
    """Replaces the learning rates of a checkpoint by the configured ones, once its optimisers are restored.

    Each parameter group gets the rate that it has in the new optimiser. Schedules continue at their position, scaled by
    the ratio.
    """

    def __init__(self) -> None:
        self._new: list[list[float]] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Notes the rates of the new optimisers, before the checkpoint's states replace them."""
        self._new = [[_initial_rate(group) for group in optimizer.param_groups] for optimizer in trainer.optimizers]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        for optimizer, rates in zip(trainer.optimizers, self._new, strict=True):
            factors = []
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                old = _initial_rate(group)
                factors.append(rate / old if old else 1.0)
                for name in ("lr", "initial_lr"):
                    if name in group:
                        group[name] *= factors[-1]
            for scheduler in schedulers:
                if scheduler.optimizer is optimizer:
                    scheduler.base_lrs = [rate * f for rate, f in zip(scheduler.base_lrs, factors, strict=True)]
                    scheduler._last_lr = [rate * f for rate, f in zip(scheduler._last_lr, factors, strict=True)]


def _initial_rate(group: Mapping[str, Any]) -> float:
    return float(group.get("initial_lr", group["lr"]))


@contextmanager
def explain_load_errors(path: str | None, model: pl.LightningModule) -> Iterator[None]:
    """Turns errors in loading a state dict into a UserError, e.g. if network sizes differ from the settings."""
    try:
        yield
    except RuntimeError as error:
        if path is None or not str(error).startswith("Error(s) in loading state_dict"):
            raise
        detail = str(error).partition("\n")[2].strip().partition("\n")[0]
        raise UserError(f"--ckpt_path: {path} does not fit the configured {type(model).__name__} ({detail})") from error


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _set(settings: dict[str, Any], name: str, value: Any) -> None:
    *parents, last = name.split(".")
    for parent in parents:
        settings = settings.setdefault(parent, {})
    settings[last] = value


def _equal(a: Any, b: Any) -> bool:
    return (list(a) if isinstance(a, tuple) else a) == (list(b) if isinstance(b, tuple) else b)
