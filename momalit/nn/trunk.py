"""The recurrent trunk that actors and critics are built on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from momalit.nn.recurrent import StackedGRU
from momalit.nn.stacked import StackedLinear
from momalit.team import TeamSpec


class RecurrentTrunk(nn.Module):
    """One linear layer and a GRU per agent.

    Args:
        spec: the team.
        width: units of the linear layer.
        memory: units of the GRU.
        shared: one network for all agents, told apart by a one-hot of the agent.
    """

    def __init__(self, spec: TeamSpec, width: int, memory: int, shared: bool = False) -> None:
        super().__init__()
        self.n_agents, self.shared = spec.n_agents, shared
        n = 1 if shared else spec.n_agents
        n_in = spec.observation_size + spec.action_size + (spec.n_agents if shared else 0)
        self.linear = StackedLinear(n, n_in, width, gain=2**0.5)
        self.gru = StackedGRU(n, width, memory)

    def forward(self, inputs: Tensor, keep: Tensor, h: Tensor | None = None) -> Tensor:
        """Runs over time.

        Args:
            inputs: ``(A, T, B, F)``.
            keep: ``(T, B)``.
            h: memory before, ``(A, B, H)``, or None for an empty one.

        Returns:
            the memory after every step, ``(A, T, B, H)``.
        """
        if not self.shared:
            return self.gru(torch.relu(self.linear(inputs)), keep, h)
        agents, time, rows, _ = inputs.shape
        who = torch.eye(agents, device=inputs.device, dtype=inputs.dtype)[:, None, None].expand(-1, time, rows, -1)
        folded = torch.cat([inputs, who], -1).transpose(0, 1).reshape(1, time, agents * rows, -1)
        start = None if h is None else h.reshape(1, agents * rows, -1)
        memory = self.gru(torch.relu(self.linear(folded)), keep.repeat(1, agents), start)
        return memory.unflatten(2, (agents, rows)).squeeze(0).transpose(0, 1)
