"""Values of states and of actions, several per agent, run as one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from momalit.core.team import TeamSpec
from momalit.nn.gru import StackedGRU
from momalit.nn.mixers import NO_MIXER, make_mixer
from momalit.nn.recurrent_trunk import recall
from momalit.nn.sampled_actions import sampled_action_values
from momalit.nn.stacked import StackedLinear


class AgentValues(nn.Module):
    """C value networks for each of A agents, on the history of ``[o_i ; previous a_i]`` or on ``o_i`` alone.

    ``V(h)``, ``Q(h, ·)`` of all choices, or ``Q(h, a)``. A linear layer (and a GRU) reads the history; a second hidden
    layer reads what that gave and the action. So many actions can be tried in one situation at the price of their own,
    narrow, part of one layer.

    Args:
        spec: the team.
        copies: C, e.g. 2 for twins.
        width: units of the two hidden layers.
        gru_size: units of the GRU; 0 for none.
        of_actions: Q rather than V.
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
        """Reads histories.

        Args:
            inputs: ``(A, T, B, F)``, from ``AgentInputs``.
            keep: ``(T, B)``.
            h: memories before, ``(C A, B, H)``, or None for empty ones.

        Returns:
            what every network knows at every time, ``(C A, T, B, H)``.
        """
        feature = torch.relu(self.read(inputs.repeat(self.copies, 1, 1, 1)))
        return feature if self.gru is None else self.gru(feature, keep, h)

    def hidden_states(self, inputs: Tensor, keep: Tensor, begin: int, end: int) -> Tensor:
        """``forward`` at the times from ``begin`` to before ``end``, ``(C A, end - begin, B, H)``; see ``recall``."""
        return recall(self, self.gru is not None, inputs, keep, begin, end)

    def every(self, hidden_state: Tensor, frozen: bool = False) -> Tensor:
        """``Q(h, ·)`` of all choices, or ``V(h)`` as the only one, ``(C, T, B, A, U)``.

        Args:
            hidden_state: ``(C A, T, B, H)``, or of the first copies only.
            frozen: nothing is to be learnt by the networks.
        """
        n = hidden_state.shape[0]
        weight, bias = _parameters(self.hidden, n, frozen)
        hidden = torch.relu(torch.baddbmm(bias, hidden_state.flatten(1, 2), weight))
        weight, bias = _parameters(self.out, n, frozen)
        values = torch.baddbmm(bias, hidden, weight).float()
        return values.view(-1, self.n_agents, *hidden_state.shape[1:3], values.shape[-1]).movedim(1, 3)

    def states(self, hidden_state: Tensor) -> Tensor:
        """``V(h)`` ``(C, T, B, A)`` of memories ``(C A, T, B, H)``."""
        return self.every(hidden_state).squeeze(-1)

    def actions(self, hidden_state: Tensor, action: Tensor, frozen: bool = False) -> Tensor:
        """``Q(h, a)`` of N actions for every history.

        Args:
            hidden_state: ``(C A, T, B, H)``, or of the first copies only.
            action: ``(N, T, B, A, U)``, scaled (see ``AgentInputs.scaled``).
            frozen: the gradient goes to the actions alone.

        Returns:
            ``(C, N, T, B, A)``.
        """
        if self.discrete:
            return (self.every(hidden_state, frozen).unsqueeze(1) * action).sum(-1)
        n, time, rows, _ = hidden_state.shape
        count = action.shape[0]
        weight, bias = _parameters(self.hidden, n, frozen)
        about, doing = weight.split([self.n_features, weight.shape[1] - self.n_features], 1)
        # (N, C A, T B, U), the same for all copies.
        tried = action.flatten(1, 2).transpose(1, 2).repeat(1, n // self.n_agents, 1, 1)
        known = torch.baddbmm(bias, hidden_state.flatten(1, 2), about)
        weight, bias = _parameters(self.out, n, frozen)
        values = sampled_action_values(known, tried, doing, weight) + bias
        return values.view(count, -1, self.n_agents, time, rows).permute(1, 0, 3, 4, 2)


def _parameters(layer: StackedLinear, n: int, frozen: bool) -> tuple[Tensor, Tensor]:
    """Weight and bias of the first n networks."""
    weight, bias = layer.weight[:n], layer.bias[:n]
    return (weight.detach(), bias.detach()) if frozen else (weight, bias)


class MixedValues(AgentValues):
    """Agents' values mixed into the team's, each copy by a mixer of its own, or left apart.

    Args:
        spec: the team.
        copies: C.
        width: units of the two hidden layers.
        gru_size: units of the GRU; 0 for none.
        of_actions: Q rather than V.
        mixer: ``qmix``, ``vdn``, ``linear`` or ``none``.
    """

    def __init__(
        self, spec: TeamSpec, copies: int, width: int, gru_size: int, of_actions: bool, mixer: str = NO_MIXER
    ) -> None:
        super().__init__(spec, copies, width, gru_size, of_actions)
        count = 0 if mixer == NO_MIXER else copies
        self.mixers = nn.ModuleList(make_mixer(mixer, spec.n_agents, spec.state_size) for _ in range(count))

    def mix(self, values: Tensor, state: Tensor) -> Tensor:
        """The team's values, with a last axis of 1, or each agent's own.

        Args:
            values: ``(C, T, B, A)``.
            state: ``(T, B, S)``, standardised.

        Returns:
            ``(C, T, B, 1)``, or ``values`` without a mixer.
        """
        if not self.mixers:
            return values
        each = [mixer(value, state) for mixer, value in zip(self.mixers, values, strict=True)]
        return torch.stack(each).unsqueeze(-1).float()
