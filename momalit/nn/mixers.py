"""From the agents' values to the team's."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from momalit.core.errors import UserError


class QMixer(nn.Module):
    """Monotonic mixing (Rashid et al., 2018): two layers whose weights, kept non-negative, the state decides.

    Non-negative weights mean that raising any agent's value never lowers the team's.

    Args:
        n_agents: number of agents.
        state_size: state dimensions.
        embedding: hidden units of the mix.
    """

    def __init__(self, n_agents: int, state_size: int, embedding: int = 32) -> None:
        super().__init__()
        self.n_agents, self.embedding = n_agents, embedding
        # The three networks that need one have their hidden layer, and the first bias, in a single product.
        self.read = nn.Linear(state_size, 3 * 64 + embedding)
        self.first_weight = nn.Linear(64, n_agents * embedding)
        self.second_weight = nn.Linear(64, embedding)
        self.second_bias = nn.Linear(64, 1)

    def forward(self, values: Tensor, state: Tensor) -> Tensor:
        """Mixes ``values`` ``(..., A)`` under ``state`` ``(..., S)`` into ``(...,)``."""
        read, first_bias = self.read(state).split([3 * 64, self.embedding], -1)
        first, second, third = torch.relu(read).split(64, -1)
        weight = self.first_weight(first).unflatten(-1, (self.n_agents, self.embedding)).abs()
        # The scale keeps the mix of many agents as large as that of few.
        hidden = F.elu((values.unsqueeze(-1) * weight).sum(-2) / self.n_agents**0.5 + first_bias)
        mixed = torch.linalg.vecdot(hidden, self.second_weight(second).abs()) / self.embedding**0.5
        return mixed + self.second_bias(third).squeeze(-1)


class SumMixer(nn.Module):
    """Value decomposition (VDN; Sunehag et al., 2018): the plain sum."""

    def __init__(self, n_agents: int, state_size: int) -> None:
        super().__init__()

    def forward(self, values: Tensor, state: Tensor) -> Tensor:
        """Mixes ``values`` ``(..., A)`` into ``(...,)``."""
        return values.sum(-1)


class LinearMixer(nn.Module):
    """A state-dependent linear mix with weights of any sign, and a state bias."""

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
    """A mixer by name.

    Raises:
        UserError: the name is unknown.
    """
    if name not in MIXERS:
        raise UserError(f"model.mixer: found {name!r}, expected one of {', '.join([*MIXERS, NO_MIXER])}")
    return MIXERS[name](n_agents, state_size)
