"""From the state to what each agent's network reads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from momalit.core.team import TeamSpec
from momalit.nn.standardizer import Standardizer


class AgentInputs(nn.Module):
    """The input ``[o_i ; previous a_i]`` of every agent, padded, in standardised units.

    The index map and the masks come from the specification. Padding is zero.

    Args:
        spec: the team.
        previous: False leaves out the previous action, for networks without a memory.
    """

    index: Tensor
    acting: Tensor
    action_center: Tensor
    action_scale: Tensor

    def __init__(self, spec: TeamSpec, previous: bool = True) -> None:
        super().__init__()
        self.previous = previous
        self.size = spec.observation_size + (spec.action_size if previous else 0)
        self.standardizer = Standardizer(spec.state_size)
        low, high = spec.action_low(), spec.action_high()
        # Where each input stands among the state, the joint previous action and a last column of zeros.
        n, size, nothing = spec.n_agents, spec.action_size, spec.state_size + spec.n_agents * spec.action_size
        index = torch.where(spec.observation_mask() > 0, spec.observation_index(), nothing)
        if previous:
            index = torch.cat([index, spec.state_size + torch.arange(n * size).view(n, size)], -1)
        constants = {
            "index": index,
            "acting": spec.action_mask(),
            "action_center": torch.zeros_like(low) if spec.discrete else (low + high) / 2,
            "action_scale": torch.where(high > low, 1.0 if spec.discrete else (high - low) / 2, 1.0),
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, state: Tensor, previous_action: Tensor) -> Tensor:
        """Gathers and standardises.

        Args:
            state: ``(..., S)``.
            previous_action: ``(..., A, U)``.

        Returns:
            ``(A, ..., O + U)``, or ``(A, ..., O)``, agents first as the stacked networks want them.
        """
        seen = self.standardizer(state)
        # A previous action of zero means "none yet"; real ones are scaled by their range.
        done = self.scaled(previous_action).to(seen.dtype).flatten(-2)
        before, agents = state.shape[:-1], self.index.shape[0]
        # Gathered as whole rows of a table that has a row per column: many agents read much the same.
        nothing = seen.new_zeros(*before, 1)
        table = torch.cat([part.reshape(-1, part.shape[-1]).t() for part in (seen, done, nothing)])
        inputs = table.index_select(0, self.index.flatten()).view(agents, self.size, -1)
        return inputs.transpose(1, 2).reshape(agents, *before, self.size)

    def scaled(self, action: Tensor) -> Tensor:
        """Actions ``(..., A, U)`` with bounds moved to -1 and 1, choices as they are; zero in padding."""
        return (action - self.action_center) / self.action_scale * self.acting
