"""A task whose agents leave one after the other, as in PettingZoo: their keys vanish, and the others go on."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv


class Rescue(ParallelEnv):
    """Each agent walks on a line and leaves when it has come past 1. The reward counts who is still on its way.

    The episode terminates when all have left.
    """

    metadata = {"name": "rescue"}  # noqa: RUF012
    possible_agents = ("a", "b")
    horizon = 12

    def __init__(self, discrete: bool = False) -> None:
        self.discrete = discrete
        self.agents: list[str] = []

    def observation_space(self, agent):
        return spaces.Box(-9, 9, (1,))

    def action_space(self, agent):
        return spaces.Discrete(3) if self.discrete else spaces.Box(-1.0, 1.0, (1,))

    def reset(self, seed=None, options=None):
        random = np.random.default_rng(seed)
        self.agents, self.time = list(self.possible_agents), 0
        self.place = {agent: random.uniform(-0.5, 0.5) for agent in self.agents}
        return self._observe(), {}

    def step(self, actions):
        assert set(actions) == set(self.agents)
        self.time += 1
        for agent, action in actions.items():
            self.place[agent] += 0.5 * (int(action) - 1 if self.discrete else float(np.ravel(action)[0]))
        gone = {agent: self.place[agent] > 1 for agent in self.agents}
        over = dict.fromkeys(self.agents, self.time >= self.horizon)
        rewards = dict.fromkeys(self.agents, -1.0)
        seen = self._observe()
        self.agents = [agent for agent in self.agents if not gone[agent] and not over[agent]]
        return seen, rewards, gone, over, {}

    def _observe(self):
        return {agent: np.array([self.place[agent]], np.float32) for agent in self.agents}


def forward(observations):
    """A policy that walks, ``a`` faster than ``b``; it sees only who is there."""
    return {agent: np.array([1.0 if agent == "a" else 0.3]) for agent in observations}
