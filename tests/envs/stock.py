"""A user-defined task with different agents, action masks and no ``state()``. The seller cannot sell an empty stock."""

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete
from pettingzoo import ParallelEnv


class Stock(ParallelEnv):
    metadata = {"name": "stock"}  # noqa: RUF012
    possible_agents = ["buyer", "seller"]  # noqa: RUF012
    sizes = {"buyer": (2, 3), "seller": (3, 2)}  # noqa: RUF012  numbers of observation columns and actions

    def __init__(self, horizon=12):
        self.horizon, self.agents = horizon, []
        self.observation_spaces = {a: Dict({"observation": Box(-9, 9, (n,)), "action_mask": Box(0, 1, (k,), np.int8)})
                         for a, (n, k) in self.sizes.items()}  # fmt: skip
        self.action_spaces = {a: Discrete(k) for a, (_, k) in self.sizes.items()}

    def observation_space(self, agent):
        return self.observation_spaces[agent]

    def action_space(self, agent):
        return self.action_spaces[agent]

    def observe(self):
        observations = {"buyer": [self.price, self.store], "seller": [self.store, self.demand, self.price]}
        legal = {"buyer": [1, self.store < 3, self.store < 2], "seller": [1, self.store > 0]}
        return {a: {"observation": np.array(observations[a], np.float32), "action_mask": np.array(legal[a], np.int8)}
                for a in self.agents}  # fmt: skip

    def reset(self, seed=None, options=None):
        self.rng = np.random.default_rng(seed)
        self.agents, self.time, self.store = list(self.possible_agents), 0, 1
        self.price, self.demand = self.rng.normal(size=2)
        return self.observe(), {a: {} for a in self.agents}

    def step(self, actions):
        self.store += actions["buyer"] - actions["seller"]
        reward = {"buyer": -self.price * actions["buyer"], "seller": 2 * self.demand * actions["seller"]}
        self.price, self.demand, self.time = *self.rng.normal(size=2), self.time + 1
        observations, truncations = self.observe(), dict.fromkeys(self.agents, self.time >= self.horizon)
        live, self.agents = self.agents, [] if self.time >= self.horizon else self.agents
        return observations, reward, dict.fromkeys(live, False), truncations, {a: {} for a in live}
