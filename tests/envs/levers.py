"""A task with MultiDiscrete and MultiBinary actions."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv


class Levers(ParallelEnv):
    """The reward counts how many of five levers stand right: agent ``a`` has three of several positions, ``b`` two.

    Right are the positions of the observation. Discrete positions of ``a`` start at 1.
    """

    metadata = {"name": "levers"}  # noqa: RUF012
    possible_agents = ("a", "b")
    horizon = 4

    def __init__(self) -> None:
        self.agents: list[str] = []
        self.received: dict = {}

    def observation_space(self, agent):
        return spaces.Box(0, 9, (5,))

    def action_space(self, agent):
        return spaces.MultiDiscrete([2, 3, 2], start=[1, 1, 1]) if agent == "a" else spaces.MultiBinary(2)

    def reset(self, seed=None, options=None):
        self.agents, self.rng, self.time = list(self.possible_agents), np.random.default_rng(seed), 0
        return self._observe(), {}

    def step(self, actions):
        self.received, self.time = actions, self.time + 1
        assert all(
            self.action_space(agent).contains(np.asarray(action, np.int8 if agent == "b" else np.int64))
            for agent, action in actions.items()
        )
        right = float((np.concatenate([actions["a"], actions["b"]]) == self.wanted).sum())
        over = self.time == self.horizon
        self.agents = [] if over else self.agents
        flags = dict.fromkeys(self.possible_agents, False)
        return self._observe(), dict.fromkeys(self.possible_agents, right), flags, dict.fromkeys(flags, over), {}

    def _observe(self):
        high = [3, 4, 3, 2, 2]
        self.wanted = np.array([self.rng.integers(low, high[i]) for i, low in enumerate([1, 1, 1, 0, 0])])
        return dict.fromkeys(self.possible_agents, self.wanted.astype(np.float32))


def wanted(observations):
    """A policy that acts as the environment takes actions: always right."""
    seen = observations["a"].astype(np.int64)
    return {"a": seen[:3], "b": seen[3:]}
