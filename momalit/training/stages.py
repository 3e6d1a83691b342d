"""What MOMA-PPO needs first: a world model, and policies to start from. Trained once, then found in a cache."""

from __future__ import annotations

import hashlib
import json
import logging
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

TrainerFactory = Callable[[RunDirectory, "Stage", pl.LightningModule], pl.Trainer]


@dataclass(frozen=True)
class Stage:
    """One kind of preparation.

    Args:
        key: the configuration's group of settings, the policies' argument that takes the checkpoint, and the folder.
        title: what people call it.
        kind: the module that is trained.
        inherits: settings taken from the policies, because the two must agree.
    """

    key: str
    title: str
    kind: type[pl.LightningModule]
    inherits: tuple[str, ...]

    @property
    def folder(self) -> str:
        """Where the cache keeps this kind."""
        return f"{self.key}s"


def settings_of(stage: Stage, group: Mapping[str, Any], policies: Mapping[str, Any]) -> dict[str, Any]:
    """The stage's settings: its group in the configuration, and what it shares with the policies."""
    return {**group, **{name: policies[name] for name in stage.inherits if name in policies}}


def cache_key(stage: Stage, fingerprint: str, settings: Mapping[str, Any], seed: int | None, precision: str) -> str:
    """Names a checkpoint by everything that its weights depend on."""
    parts = {
        "version": library_version(),
        "class": stage.kind.__name__,
        "data": fingerprint,
        "settings": dict(settings),
        "seed": seed,
        "precision": str(precision),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:20]


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
    """The stage's checkpoint for this dataset, these settings and this seed.

    Args:
        stage: what is wanted.
        settings: of the stage's module, and ``max_epochs``.
        datamodule: gives ``spec``, ``fingerprint`` and the data.
        seed: of the training; None was not seeded, which is never looked up.
        precision: Lightning's name of the number format.
        run: the run that needs it; training happens in its subdirectory, and continues there if it was interrupted.
        cache: where checkpoints of all runs are kept.
        make_trainer: makes the stage's trainer.

    Returns:
        ``path`` of the checkpoint, its ``key``, and ``from``: ``cache`` or ``training``.
    """
    key = cache_key(stage, datamodule.fingerprint, settings, seed, precision)
    kept = cache / stage.folder / f"{key}.ckpt"
    if seed is not None and kept.is_file():
        logger.info("%s: found in the cache, trained on the same data, settings and seed: %s", stage.title, kept)
        return {"path": str(kept), "key": key, "from": "cache"}
    own = RunDirectory(run.path / stage.key)
    if seed is not None:
        seed_everything(seed, workers=True, verbose=False)
    module = stage.kind(datamodule.spec, **{name: value for name, value in settings.items() if name != "max_epochs"})
    trainer = make_trainer(own, stage, module)
    last = own.checkpoint("last")
    logger.info("%s: %s in %s", stage.title, "training goes on" if last.is_file() else "training", own.path)
    trainer.fit(module, datamodule=datamodule, ckpt_path=str(last) if last.is_file() else None)
    if seed is not None and trainer.is_global_zero:
        copy_whole(last, kept)
    return {"path": str(last.resolve()), "key": key, "from": "training"}


def copy_whole(source: Path, target: Path) -> None:
    """Copies a file so that other processes see all of it or nothing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(prefix=".partial-", dir=target.parent)
    os.close(handle)
    try:
        shutil.copyfile(source, partial)
        os.chmod(partial, 0o644)  # mkstemp makes files private
        os.replace(partial, target)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
