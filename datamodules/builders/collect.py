"""Generates datasets by running a behaviour in a real environment. Equal seeds give equal trajectories."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.builders.behaviours import make_behaviour
from datamodules.builders.play_episodes import run_behaviour
from datamodules.builders.snapshots import run_mixture, select_snapshots
from datamodules.names import DEFAULT_TRANSITIONS, dataset_id, datasets_root, split_name
from datamodules.readers.team_dataset import contents_hash
from datamodules.writer import write_dataset
from momalit.core.errors import UserError
from momalit.envs import make_env, team_spec
from momalit.envs.factory import non_default_settings
from momalit.training.run_directory import versions_of

logger = logging.getLogger(__name__)

PACKAGES = ("numpy", "torch", "mujoco", "gymnasium", "pettingzoo", "minari")


def collect(
    dataset: str,
    env: Mapping[str, Any] | None = None,
    transitions: int | None = None,
    seed: int = 0,
    output: str | Path | None = None,
) -> Path:
    """Generates a dataset, unless it exists already.

    Args:
        dataset: a built-in name such as ``reacher/expert-mix``, or ``package.module:callable/random``.
        env: settings of the task.
        transitions: minimum number of transitions; all episodes are complete. None for the task's default.
        seed: seed of the whole dataset.
        output: new directory for the dataset; None for its default location under ``$MOMALIT_HOME``.

    Returns:
        the dataset's directory.

    Raises:
        UserError: the name or a setting is unknown, or ``output`` exists.
    """
    task, kind = split_name(dataset)
    settings = non_default_settings(task, {key: value for key, value in (env or {}).items() if key != "name"})
    transitions = DEFAULT_TRANSITIONS.get(task, 10_000) if transitions is None else transitions
    if not isinstance(transitions, int) or transitions < 1:
        raise UserError(f"data.transitions: found {transitions!r}, expected an integer of at least 1")
    name = dataset_id(task, kind, settings, transitions, seed)
    target = Path(output).expanduser() if output is not None else datasets_root() / name
    if target.exists():
        if output is not None:
            raise UserError(f"output: {target} exists, expected a new directory")
        logger.info("%s is already at %s", dataset, target)
        return target
    instance = make_env(task, **settings)
    spec = team_spec(instance, task, settings)
    instance.close()
    logger.info("collecting %s: %d transitions, seed %d, into %s", dataset, transitions, seed, target)
    if snapshots := select_snapshots(task, kind):
        trajectories = run_mixture(spec, snapshots, transitions, seed, dataset)
        generator = {"snapshots": [snapshot.description() for snapshot in snapshots]}
    else:
        rng = np.random.default_rng(seed)
        behaviour = make_behaviour(task, kind)(spec, -(-transitions // spec.horizon), rng)
        trajectories = run_behaviour(spec, behaviour, transitions, rng, label=dataset)
        generator = behaviour.settings()
    provenance = {
        "dataset": dataset,
        "settings": settings,
        "transitions": transitions,
        "seed": seed,
        "generator": generator,
        "versions": versions(),
        "sha256": contents_hash(spec, trajectories),
    }
    write_dataset(target, name, spec, trajectories, provenance)
    return target


def versions() -> dict[str, str]:
    """Versions of the packages that a dataset's contents depend on."""
    return versions_of(PACKAGES)
