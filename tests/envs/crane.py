"""A task whose agents differ in kind: one chooses, the other acts by a real number."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv


class Crane(ParallelEnv):
    """The signaller shows where the load should go, left, middle or right; the hook moves to it along a line.

    The reward is 1 where the signal is right, less the hook's distance from the place that the signal shows.
    """

    metadata = {"name": "crane"}  # noqa: RUF012
    possible_agents = ("signaller", "hook")
    horizon = 6

    def __init__(self) -> None:
        self.agents: list[str] = []

    def observation_space(self, agent):
        return spaces.Box(-9, 9, (1 if agent == "signaller" else 2,))

    def action_space(self, agent):
        return spaces.Discrete(3) if agent == "signaller" else spaces.Box(-1.0, 1.0, (1,))

    def reset(self, seed=None, options=None):
        random = np.random.default_rng(seed)
        self.agents, self.time = list(self.possible_agents), 0
        self.place, self.goal = random.uniform(-1, 1), float(random.integers(3)) - 1
        return self._observe(), {}

    def step(self, actions):
        self.time += 1
        shown = int(actions["signaller"]) - 1
        self.place = float(np.clip(self.place + float(np.ravel(actions["hook"])[0]), -1, 1))
        reward = float(shown == self.goal) - abs(self.place - shown)
        agents, over = list(self.agents), self.time >= self.horizon
        seen = self._observe()
        self.agents = [] if over else self.agents
        off = dict.fromkeys(agents, False)
        return seen, dict.fromkeys(agents, reward), off, dict.fromkeys(agents, over), {}

    def _observe(self):
        own = {"signaller": [self.goal], "hook": [self.place, self.goal]}
        return {agent: np.array(own[agent], np.float32) for agent in self.agents}


def expert(observations):
    """A policy that signals where the load should go, and moves there."""
    goal, place = float(observations["signaller"][0]), float(observations["hook"][0])
    return {"signaller": int(goal) + 1, "hook": np.clip([goal - place], -1, 1)}
