"""A behaviour made of a user's own policies, which ``collect --policy`` records."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from momalit.core.errors import UserError
from momalit.core.imports import import_by_name
from momalit.core.team import AgentSpec, TeamSpec
from momalit.envs.spaces import Choices

Policy = Callable[[Mapping[str, np.ndarray]], Mapping[str, Any]]


class RecordedPolicy:
    """Plays a user's policy, which maps each agent's observation to its action.

    Args:
        spec: the team.
        policy: a callable that takes ``{agent: observation (O,)}`` and returns ``{agent: action}``, a number for
            discrete actions and ``(U,)`` for continuous ones; or a class of such callables, of which each episode
            gets an object of its own, with a memory for instance. If its constructor has an argument ``seed``, that is
            the episode's, so that equal seeds of the dataset give equal episodes.
        name: name of the policy, for messages and the dataset's provenance.
        choices: the discrete actions of each agent in the environment. A policy may return them as the environment
            takes them; several choices at once also by the number of their combination.
    """

    def __init__(self, spec: TeamSpec, policy: Policy | type, name: str, choices: Mapping[str, Choices]) -> None:
        self._spec, self._policy, self._name, self._choices = spec, policy, name, choices
        self._of_episode: dict[int, Policy] = {}
        self._takes_seed = isinstance(policy, type) and "seed" in inspect.signature(policy).parameters

    def settings(self) -> dict[str, Any]:
        """The entry in the dataset's provenance."""
        return {"behaviour": "policy", "policy": self._name}

    def act(self, episode: np.ndarray, state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Joint actions ``(B, A, U)`` for states ``(B, S)`` of the episodes numbered ``(B,)``.

        Raises:
            UserError: the policy leaves an agent out, or returns an action that the environment does not have.
        """
        joint = np.zeros((len(state), self._spec.n_agents, self._spec.action_size), np.float32)
        for row, number in enumerate(episode.tolist()):
            there = [a for a in self._spec.agents if a.present is None or state[row, a.present] > 0.5]
            observations = {agent.name: state[row, list(agent.observes)] for agent in there}
            actions = self._for(number, rng)(observations)
            for i, agent in enumerate(self._spec.agents):
                if agent not in there:
                    continue
                if agent.name not in actions:
                    found = ", ".join(map(str, actions)) or "nobody"
                    raise UserError(f"policy {self._name}: found actions of {found}, expected one of {agent.name}, too")
                joint[row, i, : agent.action_size] = self._action(agent, actions[agent.name])
        return joint

    def _for(self, episode: int, rng: np.random.Generator) -> Policy:
        if not isinstance(self._policy, type):
            return self._policy
        if episode not in self._of_episode:
            seeds = {"seed": int(rng.integers(2**31))} if self._takes_seed else {}
            self._of_episode[episode] = self._policy(**seeds)
        return self._of_episode[episode]

    def _action(self, agent: AgentSpec, given: Any) -> np.ndarray:
        action = np.asarray(given, np.float64).reshape(-1)
        found = f"policy {self._name}: found the action {given!r} of {agent.name}"
        if agent.discrete:
            choices = self._choices[agent.name]
            first = choices.start[0] if choices.single else 0
            if action.size == len(choices.sizes):  # as the environment takes it
                action = choices.number(action[None])
            if action.size != 1 or action[0] not in range(agent.action_size):
                raise UserError(f"{found}, expected {first}..{first + agent.action_size - 1}")
            return np.eye(agent.action_size, dtype=np.float32)[int(action[0])]
        low, high = np.array(agent.low), np.array(agent.high)
        if action.size != agent.action_size or not ((action >= low - 1e-6) & (action <= high + 1e-6)).all():
            raise UserError(f"{found}, expected {agent.action_size} numbers from {agent.low} to {agent.high}")
        return action.clip(low, high).astype(np.float32)


def find_policy(policy: str | Policy | type) -> tuple[Policy | type, str]:
    """Returns a policy and its name, given itself or ``package.module:name``.

    Raises:
        UserError: it cannot be imported, or is not callable.
    """
    if not isinstance(policy, str):
        return policy, getattr(policy, "__qualname__", type(policy).__qualname__)
    found = import_by_name(policy, "--policy", "package.module:callable")
    if not callable(found):
        raise UserError(
            f"--policy: found '{policy}', a {type(found).__name__}, expected a callable or a class of callables"
        )
    return found, policy


def kind_of(name: str) -> str:
    """The kind in the name of a recorded dataset."""
    return "policy-" + re.sub(r"[^-\w]+", "-", name).strip("-")
