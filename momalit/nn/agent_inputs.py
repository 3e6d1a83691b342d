"""Builds the input of each agent's network from the state."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from momalit.core.team import TeamSpec
from momalit.nn.standardizer import Standardizer


class AgentInputs(nn.Module):
    """The standardised, zero-padded input ``[o_i ; previous a_i]`` of every agent.

    The index map and the masks come from the team specification.

    Args:
        spec: the team.
        previous: include the previous action; False for networks without a recurrent layer.
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
        low, high, choosing = spec.action_low(), spec.action_high(), spec.choosing().unsqueeze(1)
        # The column of each input in [state ; joint previous action ; zero], where the zero column is the padding.
        n, size, zero_column = spec.n_agents, spec.action_size, spec.state_size + spec.n_agents * spec.action_size
        index = torch.where(spec.observation_mask() > 0, spec.observation_index(), zero_column)
        if previous:
            index = torch.cat([index, spec.state_size + torch.arange(n * size).view(n, size)], -1)
        constants = {
            "index": index,
            "acting": spec.action_mask(),
            "action_center": torch.where(choosing, 0.0, (low + high) / 2),
            "action_scale": torch.where(choosing | (high <= low), 1.0, (high - low) / 2),
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, state: Tensor, previous_action: Tensor) -> Tensor:
        """Gathers and standardises the inputs of all agents.

        Args:
            state: ``(..., S)``.
            previous_action: ``(..., A, U)``.

        Returns:
            ``(A, ..., O + U)``, or ``(A, ..., O)`` without the previous action; agents first, for stacked networks.
        """
        standardized = self.standardizer(state)
        scaled = self.scaled(previous_action).to(standardized.dtype).flatten(-2)
        batch_shape, agents = state.shape[:-1], self.index.shape[0]
        # The table has one row per input column, so that a gather copies whole rows.
        zeros = standardized.new_zeros(*batch_shape, 1)
        table = torch.cat([part.reshape(-1, part.shape[-1]).t() for part in (standardized, scaled, zeros)])
        inputs = table.index_select(0, self.index.flatten()).view(agents, self.size, -1)
        return inputs.transpose(1, 2).reshape(agents, *batch_shape, self.size)

    def scaled(self, action: Tensor) -> Tensor:
        """Actions ``(..., A, U)`` with bounds mapped to -1 and 1, discrete ones unchanged; zero in padding."""
        return (action - self.action_center) / self.action_scale * self.acting
