"""Whole episodes of a behaviour in a real environment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from datamodules.builders.behaviours import Behaviour
from momalit.core.team import TeamSpec
from momalit.core.trajectories import Trajectories
from momalit.envs import VectorTeamEnv

N_ROWS = 50  # environments stepped together; part of what makes a dataset reproducible

# An episode of L steps: states (L + 1, S), actions (L, A, U), rewards (L,), and whether each step terminated it or a
# limit of time cut it (L,).
Episode: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def play(
    spec: TeamSpec, behaviour: Behaviour, transitions: int, rng: np.random.Generator, label: str = "playing"
) -> Trajectories:
    """Whole episodes of a behaviour, at least ``transitions`` steps in all."""
    n_rows = min(N_ROWS, -(-transitions // spec.horizon))
    env = VectorTeamEnv(spec, n_rows)
    kept: list[Episode] = []
    total = episodes = 0
    with progress_bar(label, transitions) as advance:
        while total < transitions:
            for episode in run_episodes(env, behaviour, np.arange(episodes, episodes + n_rows), rng):
                if total < transitions:
                    kept.append(episode)
                    total += len(episode[1])
                    advance(len(episode[1]))
            episodes += n_rows
    env.close()
    return as_trajectories(kept)


def run_episodes(
    env: VectorTeamEnv, behaviour: Behaviour, episode: np.ndarray, rng: np.random.Generator
) -> list[Episode]:
    """One episode per row.

    Args:
        env: without automatic reset.
        behaviour: what acts.
        episode: the number of every row's episode, ``(B,)``.
        rng: draws the seeds of the environments, and is the behaviour's own.
    """
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
    joined = [torch.stack(states, 1), torch.stack(actions, 1)]
    joined += [torch.stack([getattr(step, key) for step in steps], 1) for key in ("reward", "terminated", "truncated")]
    state, action, reward, terminated, truncated = joined
    return [
        (state[row, : n + 1], action[row, :n], reward[row, :n], terminated[row, :n], truncated[row, :n])
        for row, n in enumerate(lengths)
    ]


@contextmanager
def progress_bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, and nothing elsewhere; yields what moves it on."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(label, total=total)
        yield lambda steps: progress.advance(bar, steps)


def as_trajectories(episodes: list[Episode]) -> Trajectories:
    """Episodes one after the other."""
    state, action, reward, terminated, truncated = (torch.cat(parts) for parts in zip(*episodes, strict=True))
    lengths = torch.tensor([len(episode[1]) for episode in episodes])
    return Trajectories.from_lengths(state, action, reward, terminated, truncated, lengths)
