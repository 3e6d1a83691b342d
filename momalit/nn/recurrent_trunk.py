"""The recurrent trunk that actors and critics are built on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from momalit.core.team import TeamSpec
from momalit.nn.gru import StackedGRU, recur
from momalit.nn.stacked import StackedLinear


class RecurrentTrunk(nn.Module):
    """One linear layer and a GRU per agent, or two linear layers where nothing need be remembered.

    Args:
        spec: the team.
        width: units of the linear layers.
        gru_size: units of the GRU; 0 for none, which reads the present observation alone.
        share_parameters: one network for all agents, told apart by a one-hot of the agent.
    """

    def __init__(self, spec: TeamSpec, width: int, gru_size: int, share_parameters: bool = False) -> None:
        super().__init__()
        self.n_agents, self.share_parameters = spec.n_agents, share_parameters
        self.size = gru_size or width
        n = 1 if share_parameters else spec.n_agents
        n_in = (
            spec.observation_size + (spec.action_size if gru_size else 0) + (spec.n_agents if share_parameters else 0)
        )
        self.linear = StackedLinear(n, n_in, width, gain=2**0.5)
        self.gru = StackedGRU(n, width, gru_size) if gru_size else None
        self.second = None if gru_size else StackedLinear(n, width, width, gain=2**0.5)

    def forward(self, inputs: Tensor, keep: Tensor, h: Tensor | None = None) -> Tensor:
        """Runs over time.

        Args:
            inputs: ``(A, T, B, F)``.
            keep: ``(T, B)``.
            h: memory before, ``(A, B, H)``, or None for an empty one.

        Returns:
            the memory after every step, ``(A, T, B, H)``; without a GRU the last hidden layer in its place.
        """
        return run_trunks([self], inputs, keep, h)[0]


def run_trunks(trunks: Sequence[RecurrentTrunk], inputs: Tensor, keep: Tensor, h: Tensor | None = None) -> list[Tensor]:
    """Runs trunks of one shape over the same inputs, with one loop over time for all of them.

    Args:
        trunks: G of them.
        inputs: ``(A, T, B, F)``.
        keep: ``(T, B)``.
        h: memories before, ``(G A, B, H)``, or None for empty ones.

    Returns:
        the memories of each after every step, ``(A, T, B, H)``.
    """
    agents, time, rows, _ = inputs.shape
    count = len(trunks)
    if trunks[0].share_parameters:
        # The agents become rows of one network.
        who = torch.eye(agents, device=inputs.device, dtype=inputs.dtype)[:, None, None].expand(-1, time, rows, -1)
        inputs = torch.cat([inputs, who], -1).transpose(0, 1).reshape(1, time, agents * rows, -1)
        keep = keep.repeat(1, agents)
        h = None if h is None else h.reshape(count, agents * rows, -1)
    features = [torch.relu(trunk.linear(inputs)) for trunk in trunks]
    if grus := [trunk.gru for trunk in trunks if trunk.gru is not None]:
        parts = [gru.input(feature) for gru, feature in zip(grus, features, strict=True)]
        memories = list(recur(grus, parts, keep, h))
    else:
        seconds = [trunk.second for trunk in trunks if trunk.second is not None]
        memories = [torch.relu(layer(feature)) for layer, feature in zip(seconds, features, strict=True)]
    if trunks[0].share_parameters:
        return [hidden_state[0].unflatten(1, (agents, rows)).transpose(0, 1) for hidden_state in memories]
    return memories


def recall(
    network: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    remembers: bool,
    inputs: Tensor,
    keep: Tensor,
    begin: int,
    end: int,
) -> Tensor:
    """What a network makes of the times from ``begin`` to before ``end``.

    The times before serve as burn-in: they set the memory and teach nothing (Kapturowski et al., 2019), which saves
    their part of the backward pass.

    Args:
        network: of inputs ``(A, T, B, F)``, keep ``(T, B)`` and the memory before.
        remembers: whether earlier times matter to it.
        inputs: ``(A, T, B, F)``.
        keep: ``(T, B)``.
        begin: first time wanted.
        end: first time not wanted any more.

    Returns:
        ``(n, end - begin, B, H)``.
    """
    h = None
    if remembers and begin > 0:
        with torch.no_grad():
            h = network(inputs[:, :begin], keep[:begin], None)[:, -1]
    return network(inputs[:, begin:end], keep[begin:end], h)
