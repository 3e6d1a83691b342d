"""A team inside a larger environment, whose other agents are played by a policy that does not learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pettingzoo import ParallelEnv
from pettingzoo.utils import BaseParallelWrapper

from momalit.core.errors import UserError

Policy = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class FixedAgents(BaseParallelWrapper):
    """Some agents of an environment as a team; the others follow ``policy``. The episode ends with the team's.

    Args:
        env: the whole environment.
        team: names of the agents in the team.
        policy: what the others do: a callable that takes ``{agent: observation}`` and returns ``{agent: action}``; or a
            class of such callables, of which each episode gets an object of its own, made with the episode's seed.

    Raises:
        UserError: an agent in the team is not in the environment.
    """

    def __init__(self, env: ParallelEnv, team: Sequence[str], policy: Policy | type) -> None:
        super().__init__(env)
        if missing := [name for name in team if name not in env.possible_agents]:
            raise UserError(f"team: found {', '.join(missing)}, expected some of {', '.join(env.possible_agents)}")
        self.possible_agents = [name for name in env.possible_agents if name in team]
        self._policy = policy
        self._act: Policy = policy
        self._others: dict[str, Any] = {}

    @property
    def agents(self) -> list[str]:
        """The agents in the team that have not left."""
        return [name for name in self.env.agents if name in self.possible_agents]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Starts an episode, which ``seed`` determines."""
        observations, infos = self.env.reset(seed=seed, options=options)
        if isinstance(self._policy, type):
            self._act = self._policy(seed)
        return self._team(observations, others=True), self._team(infos)

    def step(self, actions: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
        """Takes one step: the team with ``actions``, the others with theirs."""
        others = {name: seen for name, seen in self._others.items() if name in self.env.agents}
        chosen = dict(self._act(others)) if others else {}
        observations, *rest = self.env.step({**actions, **{name: chosen[name] for name in others}})
        return (self._team(observations, others=True), *(self._team(part) for part in rest))

    def _team(self, parts: Mapping[str, Any], others: bool = False) -> dict[str, Any]:
        """The team's entries; with ``others`` the rest is kept for the policy."""
        if others:
            self._others = {name: part for name, part in parts.items() if name not in self.possible_agents}
        return {name: part for name, part in parts.items() if name in self.possible_agents}
