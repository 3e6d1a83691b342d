"""Stages that MOMA-PPO needs: a world model, and policies for a warm start. They are trained once and then cached."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch import seed_everything

from momalit.training.run_directory import RunDirectory, library_version

logger = logging.getLogger(__name__)

MOST_EPOCHS = 100  # with max_epochs: auto

TrainerFactory = Callable[[RunDirectory, "Stage", pl.LightningModule], pl.Trainer]


@dataclass(frozen=True)
class Stage:
    """A training stage before MOMA-PPO.

    Args:
        key: name of the configuration's group of settings, of the argument of ``MOMAPPOModule`` that takes the
            checkpoint, and of the subdirectory of the run.
        title: name in messages.
        kind: class of the trained module.
        inherits: settings that are taken from the policies because both must agree.
        gradient_steps: about how many steps ``max_epochs: auto`` takes.
        fingerprint: attribute of the datamodule with a hash of everything in the data that the stage depends on.
    """

    key: str
    title: str
    kind: type[pl.LightningModule]
    inherits: tuple[str, ...]
    gradient_steps: int
    fingerprint: str = "fingerprint"

    @property
    def folder(self) -> str:
        """Name of the cache folder for this stage."""
        return f"{self.key}s"


def settings_of(stage: Stage, group: Mapping[str, Any], policies: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the stage's settings: its group in the configuration and those it inherits from the policies."""
    return {**group, **{name: policies[name] for name in stage.inherits if name in policies}}


def epochs_for(stage: Stage, settings: Mapping[str, Any], transitions: int) -> int:
    """Returns the number of epochs after which a stage has taken its ``gradient_steps``, at most 100.

    Args:
        stage: the stage.
        settings: arguments of the stage's module.
        transitions: number of transitions in the training split.
    """
    samples = transitions * settings.get("top_fraction", 1.0) / settings.get("window", 1)
    return math.ceil(min(stage.gradient_steps / max(samples / settings["batch_size"], 1.0), MOST_EPOCHS))


def cache_key(stage: Stage, fingerprint: str, settings: Mapping[str, Any], seed: int | None, precision: str) -> str:
    """Returns a hash of everything that the weights of a checkpoint depend on."""
    content = {
        "version": library_version(),
        "class": stage.kind.__name__,
        "data": fingerprint,
        "settings": dict(settings),
        "seed": seed,
        "precision": str(precision),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:20]


def find_or_train(
    stage: Stage,
    settings: Mapping[str, Any],
    datamodule: Any,
    seed: int | None,
    precision: str,
    run: RunDirectory,
    cache: Path,
    make_trainer: TrainerFactory,
) -> dict[str, Any]:
    """Returns the stage's checkpoint for a dataset, settings and seed: from the cache, or else by training it.

    Args:
        stage: the stage.
        settings: arguments of the stage's module, and ``max_epochs``.
        datamodule: the data, with ``spec`` and the stage's fingerprint.
        seed: seed of the training. Without a seed (None) the cache is not used.
        precision: the trainer's precision, e.g. ``32-true``.
        run: the run that needs the checkpoint. Training uses its subdirectory and continues there if it was
            interrupted.
        cache: folder with checkpoints of all runs.
        make_trainer: makes the stage's trainer.

    Returns:
        ``path`` of the checkpoint, its ``key``, and ``from``, which is ``cache`` or ``training``.
    """
    key = cache_key(stage, getattr(datamodule, stage.fingerprint), settings, seed, precision)
    cached = cache / stage.folder / f"{key}.ckpt"
    if seed is not None and cached.is_file():
        logger.info("%s: found in the cache (same data, settings and seed): %s", stage.title, cached)
        return {"path": str(cached), "key": key, "from": "cache"}
    stage_run = RunDirectory(run.path / stage.key)
    if seed is not None:
        seed_everything(seed, workers=True, verbose=False)
    module = stage.kind(datamodule.spec, **{name: value for name, value in settings.items() if name != "max_epochs"})
    trainer = make_trainer(stage_run, stage, module)
    last = stage_run.checkpoint("last")
    logger.info("%s: %s in %s", stage.title, "continuing training" if last.is_file() else "training", stage_run.path)
    trainer.fit(module, datamodule=datamodule, ckpt_path=str(last) if last.is_file() else None)
    if seed is not None and trainer.is_global_zero:
        copy_atomically(last, cached)
    return {"path": str(last.resolve()), "key": key, "from": "training"}


def copy_atomically(source: Path, target: Path) -> None:
    """Copies a file so that other processes see either the complete file or none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(prefix=".partial-", dir=target.parent)
    os.close(handle)
    try:
        shutil.copyfile(source, partial)
        os.chmod(partial, 0o644)  # mkstemp creates files that only their owner can read
        os.replace(partial, target)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
