"""Makes datasets: a behaviour in a real environment, the same trajectories for the same seed."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from datamodules.experts import Behaviour, make_behaviour
from datamodules.formats import contents_hash
from datamodules.names import DEFAULT_TRANSITIONS, dataset_id, datasets_root, split_name
from datamodules.writing import write_dataset
from momalit.envs import VectorTeamEnv, make_env, team_spec
from momalit.errors import UserError
from momalit.records import Trajectories
from momalit.team import TeamSpec

logger = logging.getLogger(__name__)

N_ROWS = 50  # environments stepped together; part of what makes a dataset reproducible
PACKAGES = ("numpy", "torch", "mujoco", "gymnasium", "pettingzoo", "minari")


def collect(
    dataset: str,
    env: Mapping[str, Any] | None = None,
    transitions: int | None = None,
    seed: int = 0,
    output: str | Path | None = None,
) -> Path:
    """Makes a dataset, unless it is there already.

    Args:
        dataset: a built-in name such as ``reacher/expert-mix``, or ``package.module:callable/random``.
        env: settings of the task.
        transitions: least number of transitions; whole episodes are kept. None for the task's default.
        seed: of everything random in it.
        output: directory to make it in; None for its place under ``$MOMALIT_HOME``.

    Returns:
        the dataset's directory.

    Raises:
        UserError: the name or a setting is unknown, or ``output`` exists.
    """
    task, kind = split_name(dataset)
    settings = {key: value for key, value in (env or {}).items() if key != "name"}
    transitions = DEFAULT_TRANSITIONS.get(task, 10_000) if transitions is None else transitions
    if not isinstance(transitions, int) or transitions < 1:
        raise UserError(f"data.transitions: found {transitions!r}, expected a whole number of at least 1")
    name = dataset_id(task, kind, settings, transitions, seed)
    target = Path(output).expanduser() if output is not None else datasets_root() / name
    if target.exists():
        if output is not None:
            raise UserError(f"output: {target} exists, expected a new directory")
        logger.info("%s is already at %s", dataset, target)
        return target
    probe = make_env(task, **settings)
    spec = team_spec(probe, task, settings)
    probe.close()
    logger.info("making %s: %d transitions, seed %d, at %s", dataset, transitions, seed, target)
    rng = np.random.default_rng(seed)
    behaviour = make_behaviour(task, kind)(spec, -(-transitions // spec.horizon), rng)
    trajectories = play(spec, behaviour, transitions, rng, label=dataset)
    provenance = {
        "dataset": dataset,
        "settings": settings,
        "transitions": transitions,
        "seed": seed,
        "generator": behaviour.settings(),
        "versions": versions(),
        "sha256": contents_hash(spec, trajectories),
    }
    write_dataset(target, name, spec, trajectories, provenance)
    return target


def play(
    spec: TeamSpec, behaviour: Behaviour, transitions: int, rng: np.random.Generator, label: str = "playing"
) -> Trajectories:
    """Whole episodes of a behaviour, at least ``transitions`` steps in all."""
    n_rows = min(N_ROWS, -(-transitions // spec.horizon))
    env = VectorTeamEnv(spec, n_rows)
    kept: list[tuple[Tensor, ...]] = []
    total = episodes = 0
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(label, total=transitions)
        while total < transitions:
            for episode in _batch(env, behaviour, np.arange(episodes, episodes + n_rows), rng):
                if total < transitions:
                    kept.append(episode)
                    total += len(episode[1])
            episodes += n_rows
            progress.update(bar, completed=total)
    env.close()
    lengths = torch.tensor([len(episode[1]) for episode in kept])
    state, action, reward, terminated, truncated = (torch.cat(parts) for parts in zip(*kept, strict=True))
    return Trajectories.from_lengths(state, action, reward, terminated, truncated, lengths)


def versions() -> dict[str, str]:
    """Versions of what a dataset's numbers depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def _batch(
    env: VectorTeamEnv, behaviour: Behaviour, episode: np.ndarray, rng: np.random.Generator
) -> list[tuple[Tensor, ...]]:
    """One episode per row: its states, and its actions, rewards and two end flags."""
    state = env.reset(rng.integers(2**31, size=env.n_rows).tolist())
    states, steps, actions = [state], [], []
    running = torch.ones(env.n_rows, dtype=torch.bool)
    while running.any():
        action = torch.from_numpy(behaviour.act(episode, state.numpy(), rng))
        step = env.step(action)
        running &= ~(step.terminated | step.truncated)
        state = step.state
        states.append(state)
        actions.append(action)
        steps.append(step)
    lengths = torch.stack([step.valid for step in steps]).sum(0).tolist()
    per_row = [torch.stack(states, 1), torch.stack(actions, 1)]
    per_row += [torch.stack([getattr(step, key) for step in steps], 1) for key in ("reward", "terminated", "truncated")]
    return [tuple(part[row, : length + (part is per_row[0])] for part in per_row) for row, length in enumerate(lengths)]
