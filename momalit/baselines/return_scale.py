"""Scaling of rewards and values, so that hyper-parameters transfer between tasks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from momalit.core.trajectories import Trajectories


class ReturnScale(nn.Module):
    """Scales rewards and values so that a temperature or a regularisation weight has the same effect on every task.

    Rewards are multiplied by a factor such that the range of the dataset's episode returns equals the task's horizon,
    i.e. 1 per step. For tasks of 1,000 steps, this is the scaling of the IQL authors for locomotion (Kostrikov et al.,
    2022, section 5.2), whose temperature is used here. The scaling does not change the ranking of policies.

    Value networks output ``(value - center) / spread``, so their initial values are close to those of the dataset. This
    affects only initialisation and step size, because losses are computed in units of scaled reward.
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
        """Computes the factor, center and spread from the training split.

        Args:
            data: the training split.
            horizon: number of steps after which the task's environment truncates an episode.
            discount: γ below 1.
        """
        return_range = data.returns.max() - data.returns.min()
        self.factor.copy_(torch.where(return_range > 1e-6, horizon / return_range.clamp(min=1e-6), 1.0))
        # After a truncation, the dataset's mean reward is assumed to continue for ever, because learned values
        # bootstrap there.
        continuation = data.truncated[data.last] * data.reward.mean() / (1 - discount)
        values = self.factor * data.discounted_returns(discount, continuation)
        self.center.copy_(values.mean())
        std = values.std(correction=0)
        self.spread.copy_(torch.where(std > 1e-3, std, 1.0))

    def reward(self, reward: Tensor) -> Tensor:
        """Returns scaled rewards."""
        return self.factor * reward

    def value(self, output: Tensor) -> Tensor:
        """Converts network outputs to values in units of scaled reward."""
        return self.center + self.spread * output
