"""The multi-agent particle environments (Lowe et al., 2017) of mpe2 with continuous actions, as tasks for a team.

An agent's action is the force on it, two numbers in [-1, 1], and, if it speaks, its words, numbers in [0, 1]. In
``tag`` and ``world`` the hunters are the team, and the prey runs from them by a rule. Offline datasets of these tasks
became known with OMAR (Pan et al., 2022).
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv
from pettingzoo.utils import BaseParallelWrapper
from pettingzoo.utils.conversions import aec_to_parallel

from momalit.core.checks import require_integers, require_numbers
from momalit.core.errors import UserError
from momalit.core.symmetries import Symmetry
from momalit.envs.fixed_agents import FixedAgents
from momalit.envs.particle_symmetries import ParticleGame

MOVES = 5  # of mpe2's continuous actions: nothing, left, right, down, up
BORDER = 0.8  # coordinate beyond which the prey turns back; at 0.9 it begins to lose reward


def spread(n_agents: int = 3, horizon: int = 25, render_mode: str | None = None) -> ParallelEnv:
    """``n_agents`` agents cover as many landmarks without touching each other (``simple_spread``).

    Args:
        n_agents: number of agents and of landmarks.
        horizon: steps per episode.
        render_mode: rgb_array for images.

    Raises:
        UserError: a number is below 1, or mpe2 is not installed.
    """
    require_integers("env.", {"n_agents": n_agents, "horizon": horizon}, 1)
    game = ParticleGame(n_agents, n_agents, n_agents, words=2 * (n_agents - 1))
    env = _make("simple_spread_v3", N=n_agents, max_cycles=horizon, render_mode=render_mode)
    return Forces(env, game.symmetries())


def tag(
    n_agents: int = 3, obstacles: int = 2, horizon: int = 25, shaping: float = 0.0, render_mode: str | None = None
) -> ParallelEnv:
    """``n_agents`` hunters catch one faster prey between obstacles (``simple_tag``).

    Args:
        n_agents: number of hunters.
        obstacles: number of obstacles.
        horizon: steps per episode.
        shaping: what a hunter loses per step and unit of its distance from the prey. The game has none; online training
            starts faster with 0.1.
        render_mode: rgb_array for images.

    Raises:
        UserError: a number is out of range, or mpe2 is not installed.
    """
    require_integers("env.", {"n_agents": n_agents, "horizon": horizon}, 1)
    require_integers("env.", {"obstacles": obstacles}, 0)
    require_numbers("env.", {"shaping": shaping}, least=0)
    env = _make(
        "simple_tag_v3",
        num_adversaries=n_agents,
        num_obstacles=obstacles,
        max_cycles=horizon,
        render_mode=render_mode,
    )
    game = ParticleGame(n_agents + 1, n_agents, obstacles)
    hunters = FixedAgents(Forces(env), env.possible_agents[:n_agents], Prey(obstacles, n_agents), game.symmetries())
    return Shaped(hunters, shaping, 4 + 2 * (obstacles + n_agents - 1)) if shaping else hunters


def world(n_agents: int = 4, horizon: int = 25, render_mode: str | None = None) -> ParallelEnv:
    """``n_agents`` hunters, one of which sees into the woods and speaks, catch two prey (``simple_world_comm``).

    Args:
        n_agents: number of hunters, the one that speaks included.
        horizon: steps per episode.
        render_mode: rgb_array for images.

    Raises:
        UserError: a number is below 1, or mpe2 is not installed.
    """
    require_integers("env.", {"n_agents": n_agents, "horizon": horizon}, 1)
    env = _make("simple_world_comm_v3", num_adversaries=n_agents, max_cycles=horizon, render_mode=render_mode)
    landmarks = 5  # an obstacle, two pieces of food, two woods
    return FixedAgents(Forces(env), env.possible_agents[:n_agents], Prey(landmarks, n_agents))


class Forces(BaseParallelWrapper):
    """Continuous actions of mpe2, five non-negative moves and the words after them, as forces and words.

    Args:
        env: an environment of mpe2 with continuous actions.
        symmetries: those of the game.
    """

    def __init__(self, env: ParallelEnv, symmetries: Sequence[Symmetry] = ()) -> None:
        super().__init__(env)
        self.symmetries = tuple(symmetries)
        self._spaces = {name: self._force(env.action_space(name)) for name in env.possible_agents}

    def action_space(self, agent: str) -> spaces.Box:
        """Forces in [-1, 1], then words in [0, 1]."""
        return self._spaces[agent]

    def step(self, actions: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
        """Takes one step."""
        return self.env.step({name: self._moves(np.asarray(action)) for name, action in actions.items()})

    @staticmethod
    def _force(space: Any) -> spaces.Box:
        words = space.shape[0] - MOVES
        return spaces.Box(np.array([-1.0, -1.0] + words * [0.0], np.float32), 1.0, (2 + words,), np.float32)

    @staticmethod
    def _moves(action: np.ndarray) -> np.ndarray:
        back, ahead = np.maximum(-action[:2], 0.0), np.maximum(action[:2], 0.0)
        moves = [0.0, back[0], ahead[0], back[1], ahead[1], *action[2:]]
        return np.array(moves, np.float32)


class Shaped(BaseParallelWrapper):
    """Rewards less the distance from something that every agent observes.

    Args:
        env: the environment.
        weight: what an agent loses per unit of distance.
        column: first of the two observation columns that say where it is from the agent.
    """

    def __init__(self, env: ParallelEnv, weight: float, column: int) -> None:
        super().__init__(env)
        self._weight, self._there = weight, slice(column, column + 2)

    def step(self, actions: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
        """Takes one step."""
        observations, rewards, *rest = self.env.step(actions)
        away = {name: float(np.linalg.norm(seen[self._there])) for name, seen in observations.items()}
        return (observations, {name: reward - self._weight * away[name] for name, reward in rewards.items()}, *rest)


class Prey:
    """Runs from the hunters, most from the nearest, and back where the ground ends.

    It reads mpe2's observations: its velocity and position, then where landmarks and hunters are from there.

    Args:
        landmarks: number of landmarks in an observation.
        hunters: number of hunters, which come first among the other agents.
    """

    def __init__(self, landmarks: int, hunters: int) -> None:
        self._hunters = slice(4 + 2 * landmarks, 4 + 2 * (landmarks + hunters))

    def __call__(self, observations: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: self._flee(observed) for name, observed in observations.items()}

    def _flee(self, observed: np.ndarray) -> np.ndarray:
        position, hunters = observed[2:4], observed[self._hunters].reshape(-1, 2)
        square = (hunters**2).sum(-1, keepdims=True)
        away = -(hunters / np.maximum(square, 1e-4)).sum(0)  # a hunter that the woods hide is at 0 and adds nothing
        beyond = np.maximum(np.abs(position) - BORDER, 0.0) * np.sign(position)
        direction = away - 50.0 * beyond
        return (direction / max(float(np.abs(direction).max()), 1e-6)).astype(np.float32)


def _make(name: str, **settings: Any) -> ParallelEnv:
    try:
        module = importlib.import_module(f"mpe2.{name}")
    except ImportError as error:
        raise UserError(f"env {name}: cannot import mpe2 ({error}), expected it installed: pip install mpe2") from error
    # Without the checks that parallel_env adds for each agent, a step takes two thirds as long.
    env: ParallelEnv = aec_to_parallel(module.raw_env(continuous_actions=True, **settings))
    return env
