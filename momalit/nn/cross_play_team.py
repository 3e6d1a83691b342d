"""Teams stitched from the agents of several others."""

from __future__ import annotations

from collections.abc import Sequence as ListLike
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from momalit.core.records import Sequence
from momalit.nn.actors import TeamActor
from momalit.nn.distributions import TeamDistribution


@dataclass(frozen=True)
class CrossPlayDistribution:
    """What the agents do, each by the team it comes from.

    Args:
        parts: what every team would do.
        team: number of the team that each agent comes from, ``(A,)``.
    """

    parts: tuple[TeamDistribution, ...]
    team: Tensor

    def _chosen(self, values: ListLike[Tensor], agent_axis: int) -> Tensor:
        axis = values[0].dim() + agent_axis
        return torch.cat([value.select(axis, i).unsqueeze(axis) for i, value in self._by_agent(values)], axis)

    def _by_agent(self, values: ListLike[Tensor]) -> list[tuple[int, Tensor]]:
        return [(i, values[team]) for i, team in enumerate(self.team.tolist())]

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """An action ``(..., A, U)``."""
        return self._chosen([part.sample(generator) for part in self.parts], -2)

    @property
    def mode(self) -> Tensor:
        """The likeliest action ``(..., A, U)``."""
        return self._chosen([part.mode for part in self.parts], -2)

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-probabilities ``(..., A)``."""
        return self._chosen([part.log_prob(action) for part in self.parts], -1)


class CrossPlayTeam(nn.Module):
    """Agents of several teams as one team, with a ``TeamActor``'s interface for playing.

    Args:
        actors: the teams, all of the same specification and sizes.
        team: for each agent, the number of the team that it comes from.
    """

    def __init__(self, actors: ListLike[TeamActor], team: ListLike[int]) -> None:
        super().__init__()
        used = sorted(set(team))
        self.actors = nn.ModuleList(actors[number] for number in used)
        self.team = torch.tensor([used.index(number) for number in team])

    @property
    def mask(self) -> Tensor:
        """1 where an action slot is real, ``(A, U)``."""
        mask: Tensor = self.actors[0].mask  # type: ignore[assignment]
        return mask

    def hidden_states(self, sequence: Sequence, h: Tensor | None = None) -> Tensor:
        """The memories of all agents of all teams after every time, ``(teams * A, T, B, H)``."""
        parts = [None] * len(self.actors) if h is None else h.chunk(len(self.actors))
        return torch.cat([actor.hidden_states(sequence, part) for actor, part in zip(self.actors, parts, strict=True)])  # type: ignore[operator]

    def forward(self, sequence: Sequence, h: Tensor | None = None) -> tuple[CrossPlayDistribution, Tensor]:
        """Distribution at every time of a sequence, over ``(T, B, A, U)``, and the memories."""
        hidden_state = self.hidden_states(sequence, h)
        parts = zip(self.actors, hidden_state.chunk(len(self.actors)), strict=True)
        policies = tuple(actor.distribution(part, sequence.state) for actor, part in parts)  # type: ignore[operator]
        return CrossPlayDistribution(policies, self.team), hidden_state

    def clip(self, action: Tensor) -> Tensor:
        """The action as an environment takes it."""
        clipped: Tensor = self.actors[0].clip(action)  # type: ignore[operator]
        return clipped
