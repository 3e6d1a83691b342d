"""A world model whose members are known functions, and logs of the task that it should predict.

The task: the state moves by the first agent's action, the reward is the state before the step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from momalit.core.team import AgentSpec, TeamSpec
from momalit.core.trajectories import Trajectories
from momalit.nn.ensemble import Prediction
from momalit.world_model.dynamics import WorldModel

STEPS = 20


def line_spec() -> TeamSpec:
    agents = tuple(AgentSpec(name, (0,), 1, (-1.0,), (1.0,)) for name in "ab")
    return TeamSpec("line", agents, 1, False, STEPS, (("state", 0),))


class Members(nn.Module):
    """Member e predicts the state change ``a + bias_e[0] + slope_e s`` and the reward ``s + bias_e[1]``.

    Args:
        bias: ``(E, 2)``.
        slope: ``(E,)``.
        logit: of the termination.
    """

    def __init__(self, bias: Tensor, slope: Tensor, logit: float) -> None:
        super().__init__()
        self.bias, self.slope, self.logit = bias, slope, logit

    def forward(self, x: Tensor) -> Prediction:
        state, action = x[..., 0], x[..., 1]
        change = action + self.bias[:, :1] + self.slope.unsqueeze(1) * state
        mean = torch.stack([change, state + self.bias[:, 1:]], -1)
        return Prediction(mean, torch.full_like(mean, -20.0), torch.full_like(state, self.logit))


def known_model(
    bias: list[list[float]], slope: list[float] | None = None, logit: float = -20.0, termination: str = "never"
) -> WorldModel:
    """A model with raw units as standardised ones, and a wide bounding box."""
    model = WorldModel(line_spec(), len(bias), 4, 1, termination)
    model.network = Members(torch.tensor(bias), torch.tensor(slope or [0.0] * len(bias)), logit)
    for name, value in (("state_low", -50.0), ("state_high", 50.0), ("reward_low", -50.0), ("reward_high", 50.0)):
        getattr(model.space, name).fill_(value)
    return model


def line_log(episodes: int, noise: float = 0.0, terminated: float = 0.0, seed: int = 0) -> Trajectories:
    """Episodes of random actions from random states.

    Args:
        episodes: number of episodes.
        noise: standard deviation of noise on the rewards.
        terminated: fraction of the episodes that terminate at their last step.
        seed: seed of everything random.
    """
    random = torch.Generator().manual_seed(seed)
    action = torch.rand(episodes, STEPS, 2, 1, generator=random) * 2 - 1
    first = torch.rand(episodes, 1, generator=random) * 4 - 2
    state = torch.cat([first, first + action[:, :, 0, 0].cumsum(1)], 1)
    reward = state[:, :-1] + noise * torch.randn(episodes, STEPS, generator=random)
    ends = torch.zeros(episodes, STEPS, dtype=torch.bool)
    ends[:, -1] = True
    dies = ends & (torch.arange(episodes) < terminated * episodes).unsqueeze(1)
    lengths = torch.full((episodes,), STEPS)
    return Trajectories.from_lengths(
        state.flatten().unsqueeze(1), action.flatten(0, 1), reward.flatten(), dies.flatten(), (ends & ~dies).flatten(),
        lengths,
    )  # fmt: skip
