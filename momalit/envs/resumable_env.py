"""ResumableEnv: restores unfinished real episodes by replaying their actions."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from momalit.core.records import Step
from momalit.envs.vector_env import VectorTeamEnv


class ResumableEnv:
    """A vectorised real environment that records the actions of its current episodes.

    In general, the state of an environment cannot be saved. If an environment follows PettingZoo's rule that its
    transitions depend only on the seed and the actions, replaying the actions of the current episode restores its
    state. There are at most ``spec.horizon`` of them.

    Args:
        env: the environment, with automatic reset.
    """

    def __init__(self, env: VectorTeamEnv) -> None:
        self.env = env
        self._seeds: list[int] = []
        self._episodes = torch.zeros(env.n_rows, dtype=torch.long)
        self._lengths = torch.zeros(env.n_rows, dtype=torch.long)
        self._actions: deque[Tensor] = deque(maxlen=env.spec.horizon)

    def reset(self, seeds: Sequence[int]) -> Tensor:
        """Starts an episode in every row; see ``VectorTeamEnv.reset``."""
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
        """Returns seeds, episode counts and the actions of the current episodes as plain tensors, for ``replay``."""
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
        """Restores the states at the time of ``history``.

        Returns:
            the states reached ``(B, S)``. They differ from the original ones if the environment depends on anything
            other than seeds and actions.
        """
        self._seeds = history["seeds"].tolist()
        self._episodes, self._lengths = history["episodes"].clone(), history["lengths"].clone()
        self._actions.clear()
        self._actions.extend(history["actions"].unbind(0))
        # The last actions are the most recent ones: each row uses as many of them as its current episode has steps.
        return self.env.replay(self._seeds, self._episodes.tolist(), history["actions"], self._lengths.tolist())
