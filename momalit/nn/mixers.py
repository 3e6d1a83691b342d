"""Mixers, which combine the agents' values into the team's value."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from momalit.core.checks import require_choice


class QMixer(nn.Module):
    """Monotonic mixing (Rashid et al., 2018): two layers with non-negative weights that depend on the state.

    Because the weights are non-negative, the team's value never falls when an agent's value rises.

    Args:
        n_agents: number of agents.
        state_size: state dimensions.
        embedding: hidden units of the mixing network.
    """

    def __init__(self, n_agents: int, state_size: int, embedding: int = 32) -> None:
        super().__init__()
        self.n_agents, self.embedding = n_agents, embedding
        # One product computes the hidden layers of the three hypernetworks below and the first mixing layer's bias.
        self.read = nn.Linear(state_size, 3 * 64 + embedding)
        self.first_weight = nn.Linear(64, n_agents * embedding)
        self.second_weight = nn.Linear(64, embedding)
        self.second_bias = nn.Linear(64, 1)

    def forward(self, values: Tensor, state: Tensor) -> Tensor:
        """Mixes ``values`` ``(..., A)`` under ``state`` ``(..., S)`` into ``(...,)``."""
        pre_activation, first_bias = self.read(state).split([3 * 64, self.embedding], -1)
        first, second, third = torch.relu(pre_activation).split(64, -1)
        weight = self.first_weight(first).unflatten(-1, (self.n_agents, self.embedding)).abs()
        # Dividing by √n makes the mixed value's magnitude independent of the number of agents.
        hidden = F.elu((values.unsqueeze(-1) * weight).sum(-2) / self.n_agents**0.5 + first_bias)
        mixed = torch.linalg.vecdot(hidden, self.second_weight(second).abs()) / self.embedding**0.5
        return mixed + self.second_bias(third).squeeze(-1)


class SumMixer(nn.Module):
    """Value decomposition (VDN; Sunehag et al., 2018): the sum of the agents' values."""

    def __init__(self, n_agents: int, state_size: int) -> None:
        super().__init__()

    def forward(self, values: Tensor, state: Tensor) -> Tensor:
        """Mixes ``values`` ``(..., A)`` into ``(...,)``."""
        return values.sum(-1)


class LinearMixer(nn.Module):
    """Linear mixing with weights of either sign and a bias, all of which depend on the state."""

    def __init__(self, n_agents: int, state_size: int) -> None:
        super().__init__()
        self.weight = nn.Sequential(nn.Linear(state_size, 64), nn.ReLU(), nn.Linear(64, n_agents))
        self.bias = nn.Sequential(nn.Linear(state_size, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, values: Tensor, state: Tensor) -> Tensor:
        """Mixes ``values`` ``(..., A)`` under ``state`` ``(..., S)`` into ``(...,)``."""
        return torch.linalg.vecdot(values, self.weight(state)) + self.bias(state).squeeze(-1)


MIXERS: dict[str, Callable[[int, int], nn.Module]] = {"qmix": QMixer, "vdn": SumMixer, "linear": LinearMixer}
NO_MIXER = "none"


def make_mixer(name: str, n_agents: int, state_size: int) -> nn.Module:
    """Creates the mixer with the given name, which is not ``none``: that one needs no module.

    Raises:
        UserError: the name is unknown.
    """
    require_choice("model.mixer", name, [*MIXERS, NO_MIXER])
    return MIXERS[name](n_agents, state_size)
