"""The units in which values are learnt."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from momalit.core.trajectories import Trajectories


class ReturnScale(nn.Module):
    """Makes one temperature, or one weight of a regulariser, mean the same on every task.

    Rewards are multiplied so that the returns of the log's episodes span the task's horizon, 1 per step. On tasks of
    1,000 steps that is what IQL's authors do for locomotion (Kostrikov et al., 2022, section 5.2), whose temperature
    is used here. The order of policies is not changed by it.

    Networks give values in units of ``spread`` about ``center``, so that they begin where the values of the log are.
    This is a matter of initialisation and step size only: the losses are taken in units of scaled reward.
    """

    factor: Tensor
    center: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, value in (("factor", 1.0), ("center", 0.0), ("spread", 1.0)):
            self.register_buffer(name, torch.tensor(value))

    @torch.no_grad()
    def fit(self, data: Trajectories, horizon: int, discount: float) -> None:
        """Takes the statistics of the training split.

        Args:
            data: the log.
            horizon: steps after which the task's environment cuts an episode.
            discount: γ below 1.
        """
        span = data.returns.max() - data.returns.min()
        self.factor.copy_(torch.where(span > 1e-6, horizon / span.clamp(min=1e-6), 1.0))
        # Past a time limit the log's mean reward is taken to go on, as learnt values take it to go on.
        remaining = data.length - data.step
        cut = data.truncated[torch.arange(len(data)) + remaining - 1]
        onward = data.reward.mean() / (1 - discount)
        values = self.factor * (data.discounted_returns(discount) + cut * discount**remaining * onward)
        self.center.copy_(values.mean())
        deviation = values.std(correction=0)
        self.spread.copy_(torch.where(deviation > 1e-3, deviation, 1.0))

    def reward(self, reward: Tensor) -> Tensor:
        """Scaled rewards."""
        return self.factor * reward

    def value(self, output: Tensor) -> Tensor:
        """Values in units of scaled reward, from what a network gives."""
        return self.center + self.spread * output
