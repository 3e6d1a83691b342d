"""Checkpoints on the command line: which file is meant, and whose settings win."""

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
from momalit.training.checkpoints import read_checkpoint
from momalit.training.run_directory import RunDirectory

logger = logging.getLogger(__name__)

WORDS = ("last", "best")
NOT_SETTINGS = ("spec", "world_model", "warm_start")  # what belongs to the data, and files that may have gone


def option(words: Sequence[str], name: str) -> str | None:
    """Value of ``--name VALUE`` or ``--name=VALUE`` on a command line; the last one counts."""
    found = None
    for position, word in enumerate(words):
        if word == f"--{name}" and position + 1 < len(words):
            found = words[position + 1]
        elif word.startswith(f"--{name}="):
            found = word.partition("=")[2]
    return found


def resolve(ckpt_path: str, run: RunDirectory | None, may_be_missing: bool = False) -> str | None:
    """The file that ``--ckpt_path`` means.

    Args:
        ckpt_path: a path, or ``last`` or ``best`` of the run.
        run: the run of ``--run_dir``.
        may_be_missing: whether a run that was interrupted before its first checkpoint may be continued.

    Raises:
        UserError: there is no such file.
    """
    if ckpt_path in WORDS:
        if run is None:
            raise UserError(f"--ckpt_path: '{ckpt_path}' needs the run it belongs to, expected --run_dir DIR beside it")
        path = run.checkpoint(ckpt_path)
        if path.is_file():
            return str(path)
        if may_be_missing and run.record:
            return None
        raise UserError(f"--ckpt_path: found no {path}, expected the directory of a run that has saved a checkpoint")
    if not Path(ckpt_path).is_file():
        near = difflib.get_close_matches(ckpt_path, WORDS, n=1)
        hint = f"did you mean {near[0]}?" if near else "expected a checkpoint's path, last or best"
        raise UserError(f"--ckpt_path: found no file '{ckpt_path}', {hint}")
    return ckpt_path


def stored_settings(path: str, class_path: str) -> dict[str, Any]:
    """The model's settings in a checkpoint.

    Args:
        path: the checkpoint.
        class_path: the class that the configuration asks for.

    Raises:
        UserError: the checkpoint cannot be read or is of another class.
    """
    content = read_checkpoint(path)
    method = content.get("momalit", {}).get("method")
    wanted = class_path.rpartition(".")[2]
    if method is not None and method != wanted:
        raise UserError(f"--ckpt_path: {path} is a checkpoint of {method}, expected one of {wanted}")
    stored = {key: value for key, value in content.get("hyper_parameters", {}).items() if not key.startswith("_")}
    foreign = sorted(set(stored) - {"spec", *class_settings(class_path)})
    if foreign:
        raise UserError(
            f"--ckpt_path: {path} is of another method than {wanted}, which has no {', '.join(foreign[:3])}"
        )
    return {key: value for key, value in stored.items() if key not in NOT_SETTINGS}


def given_on_command_line(words: Sequence[str], group: str = "model") -> set[str]:
    """Settings of ``group`` that the command line names, as dotted names below it."""
    names = set()
    for word in words:
        if word.startswith(f"--{group}."):
            names.add(word.partition("=")[0].removeprefix(f"--{group}.").removeprefix("init_args."))
    return names


def merge(configured: Mapping[str, Any], stored: Mapping[str, Any], given: set[str]) -> dict[str, Any]:
    """What the checkpoint changes in the configured settings; each difference is logged in one line.

    The command line wins over the checkpoint, and the checkpoint over configuration files and defaults.

    Args:
        configured: the model's settings as parsed.
        stored: those in the checkpoint.
        given: names of those given on the command line.

    Returns:
        the settings to change.
    """
    changes: dict[str, Any] = {}
    flat, base = _flat(stored), _flat(configured)
    for name, value in flat.items():
        if name.partition(".")[0] not in configured or (name in base and _equal(base[name], value)):
            continue
        if name in given or name.partition(".")[0] in given:
            logger.info("model.%s: %s from the command line (checkpoint: %s)", name, base.get(name), value)
        else:
            if name in base:
                logger.info("model.%s: %s from the checkpoint (configuration: %s)", name, value, base[name])
            _set(changes, name, value)
    return changes


def changed_rates(configured: Mapping[str, Any], stored: Mapping[str, Any], given: set[str]) -> dict[float, float]:
    """Learning rates that the command line changes: what they were in the checkpoint -> what they shall be."""
    names = [name for name in given if name.split("_")[-1] == "lr" and isinstance(stored.get(name), float)]
    return {stored[name]: configured[name] for name in names if stored[name] != configured[name]}


class NewRates(Callback):
    """Puts learning rates from the command line in place of those that a checkpoint's optimisers remember.

    Args:
        rates: old initial rate -> new one; schedules go on from where they were, in proportion.
    """

    def __init__(self, rates: Mapping[float, float]) -> None:
        self.rates = dict(rates)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        for optimizer in checkpoint.get("optimizer_states", []):
            for group in optimizer["param_groups"]:
                factor = self._factor(group.get("initial_lr", group["lr"]))
                for name in ("lr", "initial_lr"):
                    if name in group:
                        group[name] *= factor
        for schedule in checkpoint.get("lr_schedulers", []):
            factors = [self._factor(rate) for rate in schedule.get("base_lrs", [])]
            for name in ("base_lrs", "_last_lr"):
                if len(schedule.get(name, [])) == len(factors):
                    schedule[name] = [rate * f for rate, f in zip(schedule[name], factors, strict=True)]

    def _factor(self, rate: float) -> float:
        return self.rates[rate] / rate if rate in self.rates else 1.0


@contextmanager
def fitting(path: str | None, model: pl.LightningModule) -> Iterator[None]:
    """Tells people, not programmers, that a checkpoint's networks have other sizes than the settings ask for."""
    try:
        yield
    except RuntimeError as error:
        if path is None or not str(error).startswith("Error(s) in loading state_dict"):
            raise
        detail = str(error).partition("\n")[2].strip().partition("\n")[0]
        raise UserError(f"--ckpt_path: {path} does not fit the configured {type(model).__name__} ({detail})") from error


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _set(settings: dict[str, Any], name: str, value: Any) -> None:
    *parents, last = name.split(".")
    for parent in parents:
        settings = settings.setdefault(parent, {})
    settings[last] = value


def _equal(a: Any, b: Any) -> bool:
    return (list(a) if isinstance(a, tuple) else a) == (list(b) if isinstance(b, tuple) else b)
