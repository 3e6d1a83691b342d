"""Cross-play teams, whose agents come from several trained teams."""

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
    """Joint action distribution in which each agent follows the team that it comes from.

    Args:
        parts: the joint action distribution of every team.
        team: index of the team that each agent comes from, ``(A,)``.
    """

    parts: tuple[TeamDistribution, ...]
    team: Tensor

    def _select(self, values: ListLike[Tensor], agent_axis: int) -> Tensor:
        axis = values[0].dim() + agent_axis
        return torch.cat([value.select(axis, i).unsqueeze(axis) for i, value in self._by_agent(values)], axis)

    def _by_agent(self, values: ListLike[Tensor]) -> list[tuple[int, Tensor]]:
        return [(i, values[team]) for i, team in enumerate(self.team.tolist())]

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Samples an action ``(..., A, U)``."""
        return self._select([part.sample(generator) for part in self.parts], -2)

    @property
    def mode(self) -> Tensor:
        """The most likely action ``(..., A, U)``."""
        return self._select([part.mode for part in self.parts], -2)

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-probabilities ``(..., A)``."""
        return self._select([part.log_prob(action) for part in self.parts], -1)


class CrossPlayTeam(nn.Module):
    """Agents of several teams as one team, with the part of ``TeamActor``'s interface that running episodes needs.

    Args:
        actors: the teams, all with the same specification and sizes.
        team: for each agent, the index of the team that it comes from.
    """

    def __init__(self, actors: ListLike[TeamActor], team: ListLike[int]) -> None:
        super().__init__()
        used = sorted(set(team))
        self.actors = nn.ModuleList(actors[number] for number in used)
        self.team = torch.tensor([used.index(number) for number in team])

    @property
    def mask(self) -> Tensor:
        """1 for action components, 0 for padding, ``(A, U)``."""
        mask: Tensor = self.actors[0].mask  # type: ignore[assignment]
        return mask

    def hidden_states(self, sequence: Sequence, h: Tensor | None = None) -> Tensor:
        """The hidden states of all agents of all teams after every step, ``(teams * A, T, B, H)``."""
        parts = [None] * len(self.actors) if h is None else h.chunk(len(self.actors))
        return torch.cat([actor.hidden_states(sequence, part) for actor, part in zip(self.actors, parts, strict=True)])  # type: ignore[operator]

    def forward(self, sequence: Sequence, h: Tensor | None = None) -> tuple[CrossPlayDistribution, Tensor]:
        """Action distributions at every step of a sequence, ``(T, B, A, U)``, and the hidden states."""
        hidden_state = self.hidden_states(sequence, h)
        parts = zip(self.actors, hidden_state.chunk(len(self.actors)), strict=True)
        policies = tuple(actor.distribution(part, sequence.state) for actor, part in parts)  # type: ignore[operator]
        return CrossPlayDistribution(policies, self.team), hidden_state

    def clip(self, action: Tensor) -> Tensor:
        """Clips continuous actions to their bounds; see ``TeamActor.clip``."""
        clipped: Tensor = self.actors[0].clip(action)  # type: ignore[operator]
        return clipped
