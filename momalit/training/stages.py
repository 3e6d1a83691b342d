"""Stages that MOMA-PPO needs: a world model, and policies for a warm start. They are trained once and then cached."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from momalit.core.errors import UserError
from momalit.core.files import locked, replacing
from momalit.core.team import TeamSpec
from momalit.core.trajectories import Trajectories
from momalit.training.checkpoints import LAST, damage_of, read_checkpoint
from momalit.training.run_directory import RunDirectory, externally_launched, library_version

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


def make_module(stage: Stage, settings: Mapping[str, Any], spec: TeamSpec) -> pl.LightningModule:
    """Makes the stage's module.

    Raises:
        UserError: a setting is invalid. The message has its key in the stage's group.
    """
    try:
        return stage.kind(spec, **{name: value for name, value in settings.items() if name != "max_epochs"})
    except UserError as error:
        group, _, rest = str(error).partition(".")
        own = group == "model" and rest.partition(":")[0] not in stage.inherits
        raise UserError(f"{stage.key}.{rest}" if own else str(error)) from error


def epochs_for(stage: Stage, settings: Mapping[str, Any], train: Trajectories) -> int:
    """Returns the number of epochs after which a stage has taken its ``gradient_steps``, at most 100.

    Args:
        stage: the stage.
        settings: arguments of the stage's module.
        train: the training split.
    """
    window = settings.get("window", 1)
    samples = train.count_windows(window) * settings.get("top_fraction", 1.0) / window
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


def place_in_cache(
    stage: Stage, settings: Mapping[str, Any], datamodule: Any, seed: int | None, precision: str, cache: Path
) -> tuple[str, Path | None]:
    """Returns the key of a stage's checkpoint, and its path in the cache, which is None without a seed.

    The arguments are those of ``find_or_train``.
    """
    key = cache_key(stage, getattr(datamodule, stage.fingerprint), settings, seed, precision)
    return key, None if seed is None else cache / stage.folder / f"{key}.ckpt"


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
    key, cached = place_in_cache(stage, settings, datamodule, seed, precision, cache)
    with _alone(stage, cached):
        if found := _in_cache(stage, key, cached):
            return found
        stage_run = RunDirectory(run.path / stage.key)
        if seed is not None:
            seed_everything(seed, workers=True, verbose=False)
        module = make_module(stage, settings, datamodule.spec)
        trainer = make_trainer(stage_run, stage, module)
        last = stage_run.checkpoint(LAST)
        resumes = last.is_file() and _same_settings(stage, last, key)
        trainer.callbacks.append(StageKey(key))  # type: ignore[attr-defined]
        logger.info("%s: %s in %s", stage.title, "continuing training" if resumes else "training", stage_run.path)
        trainer.fit(module, datamodule=datamodule, ckpt_path=str(last) if resumes else None)
        if cached is not None and trainer.is_global_zero:
            _keep(stage, last, cached)
        return {"path": str(last.resolve()), "key": key, "from": "training"}


class StageKey(Callback):
    """Writes into a stage's checkpoints for which data, settings and seed it is trained.

    Args:
        key: that of ``cache_key``.
    """

    def __init__(self, key: str) -> None:
        self.key = key

    def state_dict(self) -> dict[str, Any]:
        return {"key": self.key}


def _same_settings(stage: Stage, last: Path, key: str) -> bool:
    """Whether an interrupted stage can continue: the settings have not changed since then."""
    before = read_checkpoint(last).get("callbacks", {}).get(StageKey.__name__, {}).get("key", key)
    if before != key:
        logger.warning("%s: its settings have changed since %s was saved; it is trained anew", stage.title, last)
    return bool(before == key)


@contextmanager
def _alone(stage: Stage, cached: Path | None) -> Iterator[None]:
    """Waits while another run trains the same stage. Of several processes of one run, the first one waits.

    What the cache already has needs no lock, which could not be taken where nobody may write.
    """
    first = getattr(rank_zero_only, "rank", 0) == 0 and not externally_launched()
    with ExitStack() as stack:
        if first and cached is not None and not cached.is_file():
            try:
                stack.enter_context(
                    locked(cached, f"{stage.title}: another run is training the same one; waiting for it")
                )
            except OSError as error:
                logger.warning("%s: not cached, %s cannot be written (%s)", stage.title, cached.parent, error.strerror)
        yield


def _in_cache(stage: Stage, key: str, cached: Path | None) -> dict[str, Any] | None:
    """Returns the result of ``find_or_train`` if the cache has the checkpoint. A damaged one is trained again."""
    if cached is None or not cached.is_file():
        return None
    if damage := damage_of(cached):
        logger.warning("%s: %s in the cache is damaged (%s) and is trained again", stage.title, cached, damage)
        return None
    logger.info("%s: found in the cache (same data, settings and seed): %s", stage.title, cached)
    return {"path": str(cached), "key": key, "from": "cache"}


def _keep(stage: Stage, checkpoint: Path, cached: Path) -> None:
    """Copies a checkpoint to the cache. If that fails, the run goes on."""
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with replacing(cached) as partial:
            shutil.copyfile(checkpoint, partial)
    except OSError as error:
        logger.warning("%s: cannot be kept in %s (%s)", stage.title, cached.parent, error.strerror)
