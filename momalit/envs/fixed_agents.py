"""A team inside a larger environment, whose other agents are played by a policy that does not learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pettingzoo import ParallelEnv
from pettingzoo.utils import BaseParallelWrapper

from momalit.core.errors import UserError
from momalit.core.symmetries import Symmetry

Policy = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class FixedAgents(BaseParallelWrapper):
    """Some agents of an environment as a team; the others follow ``policy``. The episode ends with the team's.

    Args:
        env: the whole environment.
        team: names of the agents in the team.
        policy: what the others do: a callable that takes ``{agent: observation}`` and returns ``{agent: action}``; or a
            class of such callables, of which each episode gets an object of its own, made with the episode's seed.
        symmetries: those of the team's task, in which the others follow the policy.

    Raises:
        UserError: an agent in the team is not in the environment, the team is empty, or the policy has no action for an
            agent, which a step notices.
    """

    def __init__(
        self, env: ParallelEnv, team: Sequence[str], policy: Policy | type, symmetries: Sequence[Symmetry] = ()
    ) -> None:
        super().__init__(env)
        self.symmetries = tuple(symmetries)
        unknown = [name for name in team if name not in env.possible_agents]
        if unknown or not team:
            found = ", ".join(unknown) or "nobody"
            raise UserError(f"team: found {found}, expected some of {', '.join(env.possible_agents)}")
        self.possible_agents = [name for name in env.possible_agents if name in team]
        self._policy = policy
        self._act: Policy = policy
        self._seen_by_others: dict[str, Any] = {}

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
        return self._observe(observations), self._of_team(infos)

    def step(self, actions: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
        """Takes one step: the team with ``actions``, the others with theirs."""
        others = {name: seen for name, seen in self._seen_by_others.items() if name in self.env.agents}
        chosen = self._act(others) if others else {}
        if missing := [name for name in others if name not in chosen]:
            raise UserError(f"policy of the other agents: found no action of {', '.join(missing)}, expected one")
        observations, *rest = self.env.step({**actions, **{name: chosen[name] for name in others}})
        return (self._observe(observations), *map(self._of_team, rest))

    def _observe(self, observations: Mapping[str, Any]) -> dict[str, Any]:
        """Keeps what the others see for their policy and returns what the team sees."""
        team = self._of_team(observations)
        self._seen_by_others = {name: seen for name, seen in observations.items() if name not in team}
        return team

    def _of_team(self, parts: Mapping[str, Any]) -> dict[str, Any]:
        return {name: part for name, part in parts.items() if name in self.possible_agents}
