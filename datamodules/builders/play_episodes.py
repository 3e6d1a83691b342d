"""Runs complete episodes of a behaviour in a real environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from datamodules.builders.behaviours import Behaviour
from datamodules.builders.progress import progress_bar
from momalit.core.team import TeamSpec, who_is_there
from momalit.core.trajectories import Trajectories
from momalit.envs import VectorTeamEnv

N_ENVS = 50  # environments stepped in parallel; the contents of a dataset depend on it

# An episode of L steps: states (L + 1, S), actions (L, A, U), rewards (L,), terminated (L,), truncated (L,).
Episode: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def run_behaviour(
    spec: TeamSpec, behaviour: Behaviour, transitions: int, rng: np.random.Generator, label: str = "running episodes"
) -> Trajectories:
    """Runs complete episodes of a behaviour until they have at least ``transitions`` steps in total."""
    env = VectorTeamEnv(spec, rows_for(spec, transitions))
    with progress_bar(label, transitions) as advance:
        episodes = enough_episodes(env, lambda: behaviour, transitions, rng, advance)
    env.close()
    return as_trajectories(episodes)


def rows_for(spec: TeamSpec, transitions: int) -> int:
    """Number of environments that are stepped together for so many transitions."""
    return min(N_ENVS, -(-transitions // spec.horizon))


def enough_episodes(
    env: VectorTeamEnv,
    behaviour: Callable[[], Behaviour],
    transitions: int,
    rng: np.random.Generator,
    advance: Callable[[int], None],
) -> list[Episode]:
    """Runs complete episodes, one per row at a time, until they have at least ``transitions`` steps in total.

    Args:
        env: an environment without automatic reset.
        behaviour: returns what selects the actions of the next episodes.
        transitions: minimum number of steps.
        rng: samples the seeds of the environments, and the behaviour's random numbers.
        advance: called with the number of steps of each episode.
    """
    episodes: list[Episode] = []
    total = n_started = 0
    while total < transitions:
        numbers = np.arange(n_started, n_started + env.n_rows)
        for episode in run_episodes(env, behaviour(), numbers, rng):
            if total < transitions:
                episodes.append(episode)
                total += len(episode[1])
                advance(len(episode[1]))
        n_started += env.n_rows
    return episodes


def run_episodes(
    env: VectorTeamEnv, behaviour: Behaviour, episode: np.ndarray, rng: np.random.Generator
) -> list[Episode]:
    """Runs one episode per row.

    Args:
        env: an environment without automatic reset.
        behaviour: selects the actions.
        episode: episode number of each row, ``(B,)``.
        rng: samples the seeds of the environments, and the behaviour's random numbers.
    """
    state = env.reset(rng.integers(2**31, size=env.n_rows).tolist())
    states, steps, actions = [state], [], []
    running = torch.ones(env.n_rows, dtype=torch.bool)
    while running.any():
        action = torch.from_numpy(behaviour.act(episode, state.numpy(), rng))
        if (present := env.spec.present_index()) is not None:  # who has left does nothing
            action *= who_is_there(state, present).unsqueeze(-1)
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


def as_trajectories(episodes: list[Episode]) -> Trajectories:
    """Concatenates episodes."""
    state, action, reward, terminated, truncated = (torch.cat(parts) for parts in zip(*episodes, strict=True))
    lengths = torch.tensor([len(episode[1]) for episode in episodes])
    return Trajectories.from_lengths(state, action, reward, terminated, truncated, lengths)
