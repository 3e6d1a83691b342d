"""A robot's actuators and the agents that drive them: one body's actions as a team's, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pettingzoo import ParallelEnv

from momalit.core.errors import UserError
from momalit.core.team import STATE, TeamSpec
from momalit.envs import make_env


def actuators(env: ParallelEnv, spec: TeamSpec) -> list[tuple[int, ...]]:
    """For every agent the components of the single agent's action that it drives.

    Raises:
        UserError: the task does not say so, or its state is not the robot's alone.
    """
    drives = getattr(env, "drives", None)
    if drives is None or spec.discrete:
        raise UserError(
            f"env {spec.task}: does not say which actuators each agent drives (an attribute drives, agent to indices),"
            " expected a robot that a team drives, such as ant or reacher"
        )
    slots = [tuple(int(slot) for slot in drives[agent.name]) for agent in spec.agents]
    if [len(own) for own in slots] != [a.action_size for a in spec.agents] or sorted(sum(slots, ())) != list(
        range(spec.joint_action_size)
    ):
        raise UserError(
            f"env {spec.task}: found drives {drives}, expected each actuator once and as many as an agent acts"
        )
    if spec.sources != tuple((STATE, column) for column in range(spec.state_size)):
        raise UserError(f"env {spec.task}: its agents see more than its state(), expected an attribute observes")
    return slots


def actuators_of(spec: TeamSpec) -> list[tuple[int, ...]]:
    """``actuators`` of the team's own environment."""
    assert spec.env is not None
    env = make_env(**spec.env)
    try:
        return actuators(env, spec)
    finally:
        env.close()


def shared_out(action: np.ndarray, spec: TeamSpec, slots: Sequence[Sequence[int]]) -> np.ndarray:
    """A robot's actions ``(N, number of actuators)`` as the agents', ``(N, A, U)``, padded with zeros."""
    joint = np.zeros((len(action), spec.n_agents, spec.action_size), np.float32)
    for i, own in enumerate(slots):
        joint[:, i, : len(own)] = action[:, list(own)]
    return joint


def put_together(action: np.ndarray, slots: Sequence[Sequence[int]]) -> np.ndarray:
    """The agents' actions ``(N, A, U)`` as the robot's, ``(N, number of actuators)``."""
    whole = np.zeros((len(action), sum(map(len, slots))), np.float32)
    for i, own in enumerate(slots):
        whole[:, list(own)] = action[:, i, : len(own)]
    return whole
