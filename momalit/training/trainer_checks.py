"""Which of Lightning's settings a team can be trained with, and why not with the others."""

from __future__ import annotations

from typing import Any

from momalit.core.errors import UserError

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "64-true")
_ALIASES = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed", "64": "64-true", "None": "32-true"}
_SHARDED = ("fsdp", "deepspeed", "modelparallel")


def require_strategy(strategy: Any) -> None:
    """Refuses strategies that cut networks into pieces.

    Args:
        strategy: a strategy's name, class path or object.

    Raises:
        UserError: it is one of them.
    """
    name = strategy if isinstance(strategy, str) else type(strategy).__name__
    plain = name.lower().replace("_", "")
    if any(kind in plain for kind in _SHARDED):
        raise UserError(
            f"trainer.strategy: found {name}, expected ddp; it spreads a network's parameters over devices, but acting,"
            " imagining and clipping use networks whole, and they are small enough for one device"
        )


def require_launcher(strategy: Any) -> None:
    """Refuses ways to start processes that the command line cannot follow.

    Raises:
        UserError: the processes would live during the training alone, but stages and the final evaluation need them.
    """
    if isinstance(strategy, str) and any(word in strategy for word in ("spawn", "fork", "notebook")):
        raise UserError(
            f"trainer.strategy: found {strategy}, expected ddp; its processes end with each training, but the stages"
            " before and the evaluation after need them too"
        )


def require_precision(precision: Any) -> None:
    """Refuses number formats in which statistics and log-probabilities would be wrong.

    Args:
        precision: Lightning's name of it, or None.

    Raises:
        UserError: the weights themselves would have 16 bits.
    """
    name = _ALIASES.get(str(precision), str(precision))
    if name not in PRECISIONS:
        raise UserError(
            f"trainer.precision: found {precision}, expected one of {', '.join(PRECISIONS)}; statistics and"
            " log-probabilities need at least 32 bits"
        )


def require_kept(asked: Any, precision: str) -> None:
    """Refuses a number format that the device does not have, where Lightning would take another.

    Args:
        asked: what was asked for.
        precision: what the trainer has taken.

    Raises:
        UserError: the two differ.
    """
    name = _ALIASES.get(str(asked), str(asked))
    if name == "16-mixed" and precision != name:
        raise UserError(
            f"trainer.precision: found {asked}, expected bf16-mixed or 32-true on this device: CPUs have no float16"
            " arithmetic that networks can be trained with"
        )


def require_own_clipping(trainer: Any, what: str, settings: str) -> None:
    """Refuses Lightning's clipping of all gradients as one, which modules with clipping of their own do not do.

    Args:
        trainer: Lightning's.
        what: the module clips, for the message.
        settings: where to say how much.

    Raises:
        UserError: the trainer's clipping is on.
    """
    if trainer.gradient_clip_val is not None:
        raise UserError(
            f"trainer.gradient_clip_val: found {trainer.gradient_clip_val}, expected none: {what} clipped apart,"
            f" see {settings}"
        )
