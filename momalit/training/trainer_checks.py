"""Checks of Lightning's trainer settings. Error messages state why a setting is not supported."""

from __future__ import annotations

import logging
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.callbacks.timer import Interval

from momalit.core.errors import UserError
from momalit.training.cpu import has_bfloat16

logger = logging.getLogger(__name__)

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "64-true")
_ALIASES = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed", "64": "64-true", "None": "32-true"}
_SHARDED = ("fsdp", "deepspeed", "modelparallel")


def require_epochs(trainer: pl.Trainer) -> None:
    """Rejects a trainer that counts gradient steps: an epoch that ends in the middle cannot be resumed.

    Raises:
        UserError: ``max_steps`` is set.
    """
    if trainer.max_steps != -1 and not trainer.fast_dev_run:  # type: ignore[attr-defined]
        raise UserError(
            f"trainer.max_steps: found {trainer.max_steps}, expected none: training is resumed at the ends of epochs"
            " and therefore stops there, see trainer.max_epochs"
        )


def stop_after_epochs(trainer: pl.Trainer) -> None:
    """Lets a trainer's time limit (``max_time``) stop it at the end of an epoch only."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Timer):
            callback._interval = Interval.epoch


def require_strategy(strategy: Any) -> None:
    """Rejects strategies that shard parameters.

    Args:
        strategy: name, class path or object of a strategy.

    Raises:
        UserError: the strategy shards parameters.
    """
    name = strategy if isinstance(strategy, str) else type(strategy).__name__
    normalised = name.lower().replace("_", "")
    if any(kind in normalised for kind in _SHARDED):
        raise UserError(
            f"trainer.strategy: found {name}, expected ddp; it shards a network's parameters over devices, but acting,"
            " imagined rollouts and gradient clipping need complete networks, which fit on one device"
        )


def require_launcher(strategy: Any) -> None:
    """Rejects strategies whose processes exist only during ``fit``.

    Raises:
        UserError: the strategy starts processes by spawn or fork. The stages and the final evaluation need them, too.
    """
    if isinstance(strategy, str) and any(word in strategy for word in ("spawn", "fork", "notebook")):
        raise UserError(
            f"trainer.strategy: found {strategy}, expected ddp; its processes end after each fit, but the stages"
            " before it and the evaluation after it need them, too"
        )


def require_precision(precision: Any) -> None:
    """Rejects precisions in which statistics and log-probabilities would be wrong.

    Args:
        precision: Lightning's name of a precision, or None.

    Raises:
        UserError: the precision is not supported, e.g. because weights would have 16 bits.
    """
    name = _ALIASES.get(str(precision), str(precision))
    if name not in PRECISIONS:
        raise UserError(
            f"trainer.precision: found {precision}, expected one of {', '.join(PRECISIONS)}; statistics and"
            " log-probabilities need at least 32 bits"
        )


def require_precision_on_device(requested: Any, precision: str) -> None:
    """Rejects 16-mixed on a device without it, where Lightning would silently use another precision.

    Args:
        requested: the precision in the configuration.
        precision: the precision that the trainer uses.

    Raises:
        UserError: 16-mixed is requested and the trainer uses another precision.
    """
    name = _ALIASES.get(str(requested), str(requested))
    if name == "16-mixed" and precision != name:
        raise UserError(
            f"trainer.precision: found {requested}, expected bf16-mixed or 32-true on this device: CPUs do not"
            " support training in float16"
        )


def require_float64(device: torch.device) -> None:
    """Rejects devices without 64-bit floats, which statistics need.

    Raises:
        UserError: the device is an Apple GPU.
    """
    if device.type == "mps":
        raise UserError(
            "trainer.accelerator: found mps, expected cpu: statistics need 64-bit floats, which Apple GPUs do not have"
        )


def precision_for(device: torch.device, requested: Any, insisted: bool) -> Any:
    """The precision to compute with on a device: bf16-mixed only where the device has such products.

    Args:
        device: the device.
        requested: the precision in the configuration.
        insisted: whether the command line names it, so that it is kept.
    """
    if _ALIASES.get(str(requested), str(requested)) != "bf16-mixed" or has_bfloat16(device):
        return requested
    what = f"trainer.precision: this {device.type.upper()} has no bfloat16 arithmetic"
    if insisted:
        logger.warning("%s and emulates %s, many times slower than 32-true", what, requested)
        return requested
    logger.info("%s; using 32-true instead of %s", what, requested)
    return "32-true"


def require_no_trainer_clipping(trainer: Any, what: str, settings: str) -> None:
    """Rejects the trainer's gradient clipping for modules that clip parts of their parameters separately.

    Args:
        trainer: Lightning's trainer.
        what: the parts that the module clips and a verb, for the message, e.g. ``members are``.
        settings: the settings to use instead, for the message.

    Raises:
        UserError: the trainer's gradient clipping is on.
    """
    if trainer.gradient_clip_val is not None:
        raise UserError(
            f"trainer.gradient_clip_val: found {trainer.gradient_clip_val}, expected none: {what} clipped"
            f" separately, see {settings}"
        )
