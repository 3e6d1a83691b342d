"""Runs an exported team with onnxruntime and numpy alone. ``momalit export`` copies this file beside the agents."""

import json
from pathlib import Path

import numpy as np
import onnxruntime


class Team:
    """Agents that act on their own observations. Call ``reset`` at the beginning of every episode."""

    def __init__(self, folder=Path(__file__).parent):
        self.agents = json.loads((Path(folder) / "team.json").read_text())["agents"]
        self.networks = [onnxruntime.InferenceSession(str(Path(folder) / agent["onnx"])) for agent in self.agents]
        self.reset()

    def reset(self):
        """Forgets the episode."""
        self.previous = [np.zeros(agent["action_size"], np.float32) for agent in self.agents]
        self.hidden = [np.zeros(agent["hidden_size"], np.float32) for agent in self.agents]

    def act(self, observations, legal=None):
        """Maps each agent's name to its action, given its observation and, if it has one, its mask of legal actions.

        Agents without an observation have left, and do not act.
        """
        actions = {}
        for i, (agent, network) in enumerate(zip(self.agents, self.networks, strict=True)):
            if agent["name"] not in observations:
                continue
            values = {"observation": observations[agent["name"]], "legal": (legal or {}).get(agent["name"])}
            values |= {"previous_action": self.previous[i], "hidden": self.hidden[i]}
            names = [value.name for value in network.get_inputs()]
            action, *hidden = network.run(None, {name: np.asarray(values[name], np.float32)[None] for name in names})
            self.previous[i], self.hidden[i] = action[0], hidden[0][0] if hidden else self.hidden[i]
            actions[agent["name"]] = int(action.argmax()) if agent["discrete"] else action[0]
        return actions
