"""An environment of your own: any PettingZoo ParallelEnv works.

Two agents on a line earn more the closer they are to each other. The script collects a dataset
of random actions and trains a team on it, with the same commands as on a shell.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv


class Meeting(ParallelEnv):
    """Each agent observes both positions and moves by up to 0.2 per step, for 20 steps."""

    metadata = {"name": "meeting"}  # noqa: RUF012
    horizon = 20

    def __init__(self) -> None:
        self.possible_agents = ["left", "right"]

    def observation_space(self, agent: str) -> spaces.Space:
        return spaces.Box(-1.0, 1.0, (2,), np.float32)

    def action_space(self, agent: str) -> spaces.Space:
        return spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict, dict]:
        self.agents, self.time = list(self.possible_agents), 0
        self.position = np.random.default_rng(seed).uniform(-1, 1, 2).astype(np.float32)
        return self._observations(), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, np.ndarray]) -> tuple[dict, dict, dict, dict, dict]:
        move = np.concatenate([actions[agent] for agent in self.possible_agents])
        self.position = np.clip(self.position + 0.2 * move, -1, 1).astype(np.float32)
        self.time += 1
        over, agents = self.time == self.horizon, self.agents
        self.agents = [] if over else agents
        reward = 1 - float(abs(self.position[0] - self.position[1]))
        return (
            self._observations(),
            dict.fromkeys(agents, reward),
            dict.fromkeys(agents, False),  # the task itself never ends an episode
            dict.fromkeys(agents, over),  # the time limit does
            {agent: {} for agent in agents},
        )

    def _observations(self) -> dict[str, np.ndarray]:
        return {agent: self.position.copy() for agent in self.possible_agents}


def parallel_env() -> Meeting:
    """The callable that ``own_environment:parallel_env`` names."""
    return Meeting()


if __name__ == "__main__":
    from momalit.cli import main

    name, data = "own_environment:parallel_env", "runs/meeting/data"
    code = main(["collect", f"{name}/random", "--transitions", "5000", "--output", data])
    settings = [
        "--data.env.name",
        name,
        "--model.horizon",
        "20",
        "--trainer.max_epochs",
        "30",
        "--run_dir",
        "runs/meeting/team",
    ]
    sys.exit(code or main(["fit", "--config", "icg.yaml", "--data.dataset", data, *settings]))
