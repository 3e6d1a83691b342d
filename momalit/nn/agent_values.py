"""V- and Q-networks, one or more per agent, evaluated as one batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from momalit.core.team import TeamSpec
from momalit.nn.gru import StackedGRU
from momalit.nn.mixers import NO_MIXER, make_mixer
from momalit.nn.recurrent_trunk import run_with_burn_in
from momalit.nn.sampled_actions import sampled_action_values
from momalit.nn.stacked import StackedLinear


class AgentValues(nn.Module):
    """C value networks for each of A agents.

    Their input is the history of ``[o_i ; previous a_i]``, or ``o_i`` alone without a GRU. They compute ``V(h)``,
    ``Q(h, ·)`` for all discrete actions, or ``Q(h, a)`` for continuous ones. A linear layer (and a GRU) encodes the
    history. A second hidden layer reads this encoding and, for ``Q(h, a)``, the action. Many actions for the same
    history are therefore cheap: only the action's small part of one layer is recomputed.

    Args:
        spec: the team.
        copies: C, e.g. 2 for twin networks.
        width: units of the two hidden layers.
        gru_size: units of the GRU; 0 for none.
        of_actions: compute Q instead of V.
    """

    def __init__(self, spec: TeamSpec, copies: int, width: int, gru_size: int, of_actions: bool) -> None:
        super().__init__()
        self.copies, self.n_agents, self.discrete = copies, spec.n_agents, spec.discrete
        n = copies * spec.n_agents
        reads_action = of_actions and not spec.discrete
        n_out = spec.action_size if of_actions and spec.discrete else 1
        n_in = spec.observation_size + (spec.action_size if gru_size else 0)
        self.read = StackedLinear(n, n_in, width, gain=2**0.5)
        self.gru = StackedGRU(n, width, gru_size) if gru_size else None
        self.n_features = gru_size or width
        self.hidden = StackedLinear(n, self.n_features + (spec.action_size if reads_action else 0), width, gain=2**0.5)
        self.out = StackedLinear(n, width, n_out, gain=0.1)

    def forward(self, inputs: Tensor, keep: Tensor, h: Tensor | None = None) -> Tensor:
        """Encodes histories.

        Args:
            inputs: ``(A, T, B, F)``, from ``AgentInputs``.
            keep: ``(T, B)``, 0 where the hidden state is reset before the step.
            h: hidden states before the first step, ``(C A, B, H)``; None for zeros.

        Returns:
            the hidden state of every network after every step, ``(C A, T, B, H)``.
        """
        feature = torch.relu(self.read(inputs.repeat(self.copies, 1, 1, 1)))
        return feature if self.gru is None else self.gru(feature, keep, h)

    def hidden_states(self, inputs: Tensor, keep: Tensor, begin: int, end: int) -> Tensor:
        """``forward`` for steps ``begin`` to ``end - 1``, ``(C A, end - begin, B, H)``; see ``run_with_burn_in``."""
        return run_with_burn_in(self, self.gru is not None, inputs, keep, begin, end)

    def all_values(self, hidden_state: Tensor, frozen: bool = False) -> Tensor:
        """``Q(h, ·)`` of all discrete actions ``(C, T, B, A, U)``, or ``V(h)`` ``(C, T, B, A, 1)``.

        Args:
            hidden_state: ``(C A, T, B, H)``, or of the first copies only.
            frozen: detach the networks' parameters, so that they receive no gradient.
        """
        n = hidden_state.shape[0]
        weight, bias = _parameters(self.hidden, n, frozen)
        hidden = torch.relu(torch.baddbmm(bias, hidden_state.flatten(1, 2), weight))
        weight, bias = _parameters(self.out, n, frozen)
        values = torch.baddbmm(bias, hidden, weight).float()
        return values.view(-1, self.n_agents, *hidden_state.shape[1:3], values.shape[-1]).movedim(1, 3)

    def state_values(self, hidden_state: Tensor) -> Tensor:
        """``V(h)`` ``(C, T, B, A)`` for hidden states ``(C A, T, B, H)``."""
        return self.all_values(hidden_state).squeeze(-1)

    def action_values(self, hidden_state: Tensor, action: Tensor, frozen: bool = False) -> Tensor:
        """``Q(h, a)`` of N actions for every history.

        Args:
            hidden_state: ``(C A, T, B, H)``, or of the first copies only.
            action: ``(N, T, B, A, U)``, scaled (see ``AgentInputs.scaled``).
            frozen: detach the networks' parameters, so that only ``action`` and ``hidden_state`` receive gradients.

        Returns:
            ``(C, N, T, B, A)``.
        """
        if self.discrete:
            return (self.all_values(hidden_state, frozen).unsqueeze(1) * action).sum(-1)
        n, time, rows, _ = hidden_state.shape
        count = action.shape[0]
        weight, bias = _parameters(self.hidden, n, frozen)
        history_weight, action_weight = weight.split([self.n_features, weight.shape[1] - self.n_features], 1)
        # (N, C A, T B, U), the same for all copies.
        actions = action.flatten(1, 2).transpose(1, 2).repeat(1, n // self.n_agents, 1, 1)
        features = torch.baddbmm(bias, hidden_state.flatten(1, 2), history_weight)
        weight, bias = _parameters(self.out, n, frozen)
        values = sampled_action_values(features, actions, action_weight, weight) + bias
        return values.view(count, -1, self.n_agents, time, rows).permute(1, 0, 3, 4, 2)


def _parameters(layer: StackedLinear, n: int, frozen: bool) -> tuple[Tensor, Tensor]:
    """Weight and bias of the first n networks, detached if ``frozen``."""
    weight, bias = layer.weight[:n], layer.bias[:n]
    return (weight.detach(), bias.detach()) if frozen else (weight, bias)


class MixedValues(AgentValues):
    """Agents' values, mixed into the team's value by one mixer per copy, or not mixed.

    Args:
        spec: the team.
        copies: C.
        width: units of the two hidden layers.
        gru_size: units of the GRU; 0 for none.
        of_actions: compute Q instead of V.
        mixer: ``qmix``, ``vdn``, ``linear`` or ``none``.
    """

    def __init__(
        self, spec: TeamSpec, copies: int, width: int, gru_size: int, of_actions: bool, mixer: str = NO_MIXER
    ) -> None:
        super().__init__(spec, copies, width, gru_size, of_actions)
        count = 0 if mixer == NO_MIXER else copies
        self.mixers = nn.ModuleList(make_mixer(mixer, spec.n_agents, spec.state_size) for _ in range(count))

    def mix(self, values: Tensor, state: Tensor) -> Tensor:
        """The team's values, or each agent's value without a mixer.

        Args:
            values: ``(C, T, B, A)``.
            state: ``(T, B, S)``, standardised.

        Returns:
            ``(C, T, B, 1)``, or ``values`` unchanged without a mixer.
        """
        if not self.mixers:
            return values
        each = [mixer(value, state) for mixer, value in zip(self.mixers, values, strict=True)]
        return torch.stack(each).unsqueeze(-1).float()
