"""EliteRollouts: the world model as a batched team environment in which every elite predicts rollouts of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from momalit.core.records import Step
from momalit.world_model.correction import Correction
from momalit.world_model.dynamics import WorldModel


class EliteRollouts:
    """E · N rollouts without pessimism, N in each elite. Each elite computes its own rows only.

    Args:
        model: the world model.
        correction: what held-out data say about its errors; None for the predictions as they are.
        sample_predictions: add the predicted noise to the means.
        generator: random number generator on the model's device.
    """

    def __init__(
        self, model: WorldModel, correction: Correction | None, sample_predictions: bool, generator: torch.Generator
    ) -> None:
        self.model, self.correction = model, correction
        self.sample_predictions, self.generator = sample_predictions, generator

    def reset(self, state: Tensor) -> Tensor:
        """Starts a rollout in every elite from each of the states ``(N, S)``; returns all states ``(E N, S)``."""
        self.state = state.repeat(self.model.n_elites, 1)
        self.active = torch.ones(len(self.state), dtype=torch.bool, device=state.device)
        return self.state

    def step(self, action: Tensor) -> Step:
        """Advances all rollouts by one step.

        Args:
            action: ``(E N, A, U)``, within bounds.
        """
        space, valid = self.model.space, self.active
        x = space.input(space.raw_input(self.state, action)).unflatten(0, (self.model.n_elites, -1))
        prediction = self.model.network(x)
        outcome, logit = prediction.mean, prediction.termination
        if self.sample_predictions:
            noise = torch.randn(outcome.shape, generator=self.generator, device=outcome.device)
            outcome = outcome + noise * torch.exp(0.5 * prediction.log_variance)
        if self.correction is not None:
            outcome = outcome + self.correction.change(x)
            logit = logit + self.correction.termination.unsqueeze(1)
        outcome = space.target.inverse(outcome.flatten(0, 1) * space.target.varies)
        state = (self.state + outcome[:, :-1]).clamp(space.state_low, space.state_high)
        state = space.settle(self.state, state)
        reward = outcome[:, -1].clamp(space.reward_low, space.reward_high)
        false = torch.zeros_like(valid)
        terminated = false
        if self.model.termination == "learned":
            uniform = torch.rand(valid.shape, generator=self.generator, device=valid.device)
            terminated = valid & (uniform < torch.sigmoid(logit.flatten()))
        self.active = valid & ~terminated
        self.state = torch.where(valid.unsqueeze(-1), state, self.state)
        return Step(self.state, reward * valid, terminated, false, valid, false, false)
