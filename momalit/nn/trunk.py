"""The recurrent trunk that actors and critics are built on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from momalit.nn.recurrent import StackedGRU, recur
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
        return run_together([self], inputs, keep, h)[0]


def run_together(trunks: Sequence[RecurrentTrunk], inputs: Tensor, keep: Tensor, h: Tensor | None = None) -> Tensor:
    """Runs trunks of one shape over the same inputs, with one loop over time for all of them.

    Args:
        trunks: G of them.
        inputs: ``(A, T, B, F)``.
        keep: ``(T, B)``.
        h: memories before, ``(G A, B, H)``, or None for empty ones.

    Returns:
        the memories after every step, ``(G, A, T, B, H)``.
    """
    agents, time, rows, _ = inputs.shape
    count = len(trunks)
    if trunks[0].shared:
        # The agents become rows of one network.
        who = torch.eye(agents, device=inputs.device, dtype=inputs.dtype)[:, None, None].expand(-1, time, rows, -1)
        inputs = torch.cat([inputs, who], -1).transpose(0, 1).reshape(1, time, agents * rows, -1)
        keep = keep.repeat(1, agents)
        h = None if h is None else h.reshape(count, agents * rows, -1)
    gates = [trunk.gru.input(torch.relu(trunk.linear(inputs))) for trunk in trunks]
    memory = recur([trunk.gru for trunk in trunks], gates[0] if count == 1 else torch.cat(gates), keep, h)
    if trunks[0].shared:
        return memory.unflatten(2, (agents, rows)).transpose(1, 2)
    return memory.unflatten(0, (count, agents))
