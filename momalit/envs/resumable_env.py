"""ResumableEnv: real episodes that can be taken up again by playing them once more."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from momalit.core.records import Step
from momalit.envs.vector_env import VectorTeamEnv


class ResumableEnv:
    """Rows of a real environment that remember how they came where they are.

    The state of an environment in general cannot be saved. But an environment that keeps PettingZoo's promise, that
    what happens depends on the seed and the actions alone, comes back to the same state when the actions since the
    beginning of the episode are taken again, of which there are at most ``spec.horizon``.

    Args:
        env: the rows; they begin new episodes by themselves.
    """

    def __init__(self, env: VectorTeamEnv) -> None:
        self.env = env
        self._seeds: list[int] = []
        self._episodes = torch.zeros(env.n_rows, dtype=torch.long)
        self._lengths = torch.zeros(env.n_rows, dtype=torch.long)
        self._actions: deque[Tensor] = deque(maxlen=env.spec.horizon)

    def reset(self, seeds: Sequence[int]) -> Tensor:
        """Begins an episode in every row; see ``VectorTeamEnv.reset``."""
        self._seeds = [int(seed) for seed in seeds]
        self._episodes.zero_()
        self._lengths.zero_()
        self._actions.clear()
        return self.env.reset(seeds)

    def step(self, action: Tensor) -> Step:
        """Steps all rows; see ``VectorTeamEnv.step``."""
        step = self.env.step(action)
        self._actions.append(action.detach().clone())
        self._episodes += step.began
        self._lengths = torch.where(step.began, 0, self._lengths + step.valid)
        return step

    def history(self) -> dict[str, Any]:
        """What ``replay`` needs: seeds, episodes begun, and the actions of the current ones, as plain tensors."""
        longest = int(self._lengths.max())
        actions = list(self._actions)[len(self._actions) - longest :]
        shape = (0, self.env.n_rows, self.env.spec.n_agents, self.env.spec.action_size)
        return {
            "seeds": torch.tensor(self._seeds),
            "episodes": self._episodes.clone(),
            "lengths": self._lengths.clone(),
            "actions": torch.stack(actions) if actions else torch.zeros(shape),
        }

    def replay(self, history: dict[str, Any]) -> Tensor:
        """Takes the rows to where they were when ``history`` was made.

        Returns:
            the states they are in now ``(B, S)``; those of then, unless the environment depends on anything else than
            seeds and actions.
        """
        self._seeds = history["seeds"].tolist()
        self._episodes, self._lengths = history["episodes"].clone(), history["lengths"].clone()
        self._actions.clear()
        self._actions.extend(history["actions"].unbind(0))
        # Actions are kept up to now: the first of a row's own stands as many before the end as the row is long.
        return self.env.replay(self._seeds, self._episodes.tolist(), history["actions"], self._lengths.tolist())
