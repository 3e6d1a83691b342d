"""Assigns a robot's actuators to agents, and converts between the robot's and the team's actions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pettingzoo import ParallelEnv

from momalit.core.errors import UserError
from momalit.core.team import STATE, TeamSpec
from momalit.envs import make_env


def read_actuators(env: ParallelEnv, spec: TeamSpec) -> list[tuple[int, ...]]:
    """Indices of the robot's actuators that each agent drives.

    Raises:
        UserError: the environment does not define them, or its state is not the robot's observation.
    """
    drives = getattr(env, "drives", None)
    if drives is None or any(agent.discrete for agent in spec.agents):
        raise UserError(
            f"env {spec.task}: has discrete actions or no attribute drives (agent to actuator indices), expected a"
            " robot that a team controls, such as ant or reacher"
        )
    actuators = [tuple(int(index) for index in drives[agent.name]) for agent in spec.agents]
    if [len(own) for own in actuators] != [a.action_size for a in spec.agents] or sorted(sum(actuators, ())) != list(
        range(spec.joint_action_size)
    ):
        raise UserError(
            f"env {spec.task}: found drives {drives}, expected each actuator once and one for each action component"
        )
    if spec.sources != tuple((STATE, column) for column in range(spec.state_size)):
        raise UserError(f"env {spec.task}: agents observe more than state(), expected an attribute observes")
    return actuators


def actuators_of(spec: TeamSpec) -> list[tuple[int, ...]]:
    """Indices of the actuators that each agent drives in the specification's environment."""
    assert spec.env is not None
    env = make_env(**spec.env)
    try:
        return read_actuators(env, spec)
    finally:
        env.close()


def split_action(action: np.ndarray, spec: TeamSpec, actuators: Sequence[Sequence[int]]) -> np.ndarray:
    """Splits a robot's actions ``(N, number of actuators)`` into agents' actions ``(N, A, U)``, padded with zeros."""
    joint = np.zeros((len(action), spec.n_agents, spec.action_size), np.float32)
    for i, own in enumerate(actuators):
        joint[:, i, : len(own)] = action[:, list(own)]
    return joint


def merge_actions(action: np.ndarray, actuators: Sequence[Sequence[int]]) -> np.ndarray:
    """Merges agents' actions ``(N, A, U)`` into a robot's actions ``(N, number of actuators)``."""
    merged = np.zeros((len(action), sum(map(len, actuators))), np.float32)
    for i, own in enumerate(actuators):
        merged[:, list(own)] = action[:, i, : len(own)]
    return merged
