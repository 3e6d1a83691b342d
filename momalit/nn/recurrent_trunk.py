"""The recurrent trunk shared by actors and critics."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from momalit.core.team import TeamSpec
from momalit.nn.gru import StackedGRU, run_grus
from momalit.nn.stacked import StackedLinear


class RecurrentTrunk(nn.Module):
    """A linear layer followed by a GRU for each agent, or two linear layers without a GRU.

    Args:
        spec: the team.
        width: units of the linear layers.
        gru_size: units of the GRU; 0 for none, so that the network reads the current observation only.
        share_parameters: one network for all agents, with the agent as an additional one-hot input.
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
        """Runs over a sequence.

        Args:
            inputs: ``(A, T, B, F)``.
            keep: ``(T, B)``, 0 where the hidden state is reset before the step.
            h: hidden state before the first step, ``(A, B, H)``; None for zeros.

        Returns:
            the hidden state after every step, ``(A, T, B, H)``; without a GRU, the output of the second linear layer.
        """
        return run_trunks([self], [inputs], keep, h)[0]


def run_trunks(
    trunks: Sequence[RecurrentTrunk], inputs: Sequence[Tensor], keep: Tensor, h: Tensor | None = None
) -> list[Tensor]:
    """Runs trunks of the same sizes over the same steps, with one loop over time for all of them.

    Args:
        trunks: G trunks.
        inputs: of each trunk, ``(A, T, B, F)``.
        keep: ``(T, B)``, 0 where the hidden state is reset before the step.
        h: hidden states before the first step, ``(G A, B, H)``; None for zeros.

    Returns:
        for each trunk, the hidden states after every step, ``(A, T, B, H)``.
    """
    agents, time, rows, _ = inputs[0].shape
    count = len(trunks)
    if trunks[0].share_parameters:
        # The agents become additional batch entries of the single network.
        one_hot = torch.eye(agents, device=keep.device, dtype=inputs[0].dtype)[:, None, None].expand(-1, time, rows, -1)
        inputs = [torch.cat([x, one_hot], -1).transpose(0, 1).reshape(1, time, agents * rows, -1) for x in inputs]
        keep = keep.repeat(1, agents)
        h = None if h is None else h.reshape(count, agents * rows, -1)
    features = [torch.relu(trunk.linear(x)) for trunk, x in zip(trunks, inputs, strict=True)]
    if grus := [trunk.gru for trunk in trunks if trunk.gru is not None]:
        gates = [gru.input(feature) for gru, feature in zip(grus, features, strict=True)]
        hidden_states = list(run_grus(grus, gates, keep, h))
    else:
        second_layers = [trunk.second for trunk in trunks if trunk.second is not None]
        hidden_states = [torch.relu(layer(feature)) for layer, feature in zip(second_layers, features, strict=True)]
    if trunks[0].share_parameters:
        return [hidden_state[0].unflatten(1, (agents, rows)).transpose(0, 1) for hidden_state in hidden_states]
    return hidden_states


def run_with_burn_in(
    network: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    recurrent: bool,
    inputs: Tensor,
    keep: Tensor,
    begin: int,
    end: int,
) -> Tensor:
    """Runs a network on steps ``begin`` to ``end - 1``, with the steps before ``begin`` as burn-in.

    Burn-in steps determine the hidden state but receive no gradient (Kapturowski et al., 2019), which saves their share
    of the backward pass.

    Args:
        network: called with inputs ``(A, T, B, F)``, keep ``(T, B)`` and the hidden state before the first step.
        recurrent: whether the network depends on earlier steps; without it, burn-in is skipped.
        inputs: ``(A, T, B, F)``.
        keep: ``(T, B)``, 0 where the hidden state is reset before the step.
        begin: first step of the result.
        end: the step after the last one of the result.

    Returns:
        the hidden states of the n networks, ``(n, end - begin, B, H)``.
    """
    h = None
    if recurrent and begin > 0:
        with torch.no_grad():
            h = network(inputs[:, :begin], keep[:begin], None)[:, -1]
    return network(inputs[:, begin:end], keep[begin:end], h)
