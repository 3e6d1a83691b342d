"""ImaginedEnv: the world model as a batched team environment, with pessimism where the model is uncertain."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from momalit.core.checks import require_choice, require_numbers
from momalit.core.records import Step
from momalit.functional import uncertainty
from momalit.world_model.calibration import UncertaintyLevels
from momalit.world_model.dynamics import WorldModel

STOP_VALUES = ("pessimistic", "bootstrap")
UNKNOWN_REWARDS = ("lowest", "imagined")


@dataclass
class Pessimism:
    """Penalties and limits that keep the policies where the model is accurate.

    Uncertainties are in standardised units; penalties are in units of the reward's standard deviation. A penalty counts
    what exceeds the mean uncertainty on held-out data (see ``UncertaintyLevels``).

    Args:
        lambda_all: λ_all, coefficient of the ensemble's disagreement on state and reward; ``auto`` for the slope with
            which the errors of reward and value grow with it on held-out data (see ``UncertaintyLevels``).
        lambda_reward: λ_reward, coefficient of the ensemble's disagreement on the reward.
        lambda_aleatoric: λ_aleatoric, coefficient of the largest predicted noise.
        threshold: τ, the cap of each uncertainty and the limit of the adaptive horizon; ``auto`` for the 99 %
            quantile of the disagreement on held-out data.
        clip_to_data: clip predicted states and rewards to the dataset's bounding box.
        adaptive_horizon: stop a rollout when the disagreement on state and reward exceeds τ; ``auto`` only where
            rollouts are parts of longer episodes. In whole short ones, model errors have little time to add up, while
            the low values after stops drown what a critic has to learn.
        stop_value: highest value after such a stop: ``pessimistic`` (the lowest return in the dataset, if its episodes
            went on where a time limit ended them) or ``bootstrap``.
        unknown_reward: reward of a step whose disagreement exceeds τ: ``lowest`` (the lowest reward in the dataset) or
            ``imagined``. What the model says there is an invention, and with a stop nothing could correct it later.
    """

    lambda_all: float | Literal["auto"] = "auto"
    lambda_reward: float = 1.0
    lambda_aleatoric: float = 0.0
    threshold: float | Literal["auto"] = "auto"
    clip_to_data: bool = True
    adaptive_horizon: bool | Literal["auto"] = True
    stop_value: str = "pessimistic"
    unknown_reward: str = "lowest"

    def __post_init__(self) -> None:
        require_choice("model.pessimism.stop_value", self.stop_value, STOP_VALUES)
        require_choice("model.pessimism.unknown_reward", self.unknown_reward, UNKNOWN_REWARDS)
        weights = {"lambda_reward": self.lambda_reward, "lambda_aleatoric": self.lambda_aleatoric}
        if self.lambda_all != "auto":
            weights["lambda_all"] = self.lambda_all
        require_numbers("model.pessimism.", weights, least=0)
        if self.threshold != "auto":
            require_numbers("model.pessimism.", {"threshold": self.threshold}, above=0)

    @property
    def fixed_threshold(self) -> float | None:
        """τ, or None if it comes from the data."""
        return None if self.threshold == "auto" else self.threshold

    def for_rollouts(self, whole_episodes: bool) -> Pessimism:
        """The same settings, with ``adaptive_horizon`` true or false."""
        return self if self.adaptive_horizon != "auto" else replace(self, adaptive_horizon=not whole_episodes)

    def coefficients(self, slope: Tensor) -> tuple[float | Tensor, float, float]:
        """λ_all, λ_reward and λ_aleatoric, where ``slope`` is λ_all if it comes from the data."""
        return slope if self.lambda_all == "auto" else self.lambda_all, self.lambda_reward, self.lambda_aleatoric

    @classmethod
    def none(cls) -> Pessimism:
        """No penalties, no adaptive horizon, all rewards as imagined, for diagnostics. Clips to the bounding box."""
        return cls(
            lambda_all=0.0,
            lambda_reward=0.0,
            lambda_aleatoric=0.0,
            clip_to_data=True,
            adaptive_horizon=False,
            unknown_reward="imagined",
        )


class ImaginedEnv:
    """A batch of B rollouts in the world model.

    One elite predicts the next state, reward and termination of a rollout's step. It is sampled per rollout and step,
    or once per rollout. A rollout that has ended keeps its state and is marked invalid, so that shapes stay fixed.

    Args:
        model: the world model.
        pessimism: penalties and limits.
        sample_predictions: add the predicted noise to the elite's mean.
        generator: random number generator on the model's device.
        elite_per_rollout: use one elite for a whole rollout.
        levels: what was measured on held-out data; None for penalties from zero, the τ of ``pessimism``, and a λ_all of
            0 where it is ``auto``.
    """

    def __init__(
        self,
        model: WorldModel,
        pessimism: Pessimism,
        sample_predictions: bool = False,
        generator: torch.Generator | None = None,
        elite_per_rollout: bool = False,
        levels: UncertaintyLevels | None = None,
    ) -> None:
        self.model, self.pessimism, self.sample_predictions, self.generator = (
            model,
            pessimism,
            sample_predictions,
            generator,
        )
        self.elite_per_rollout = elite_per_rollout
        self.levels = levels or UncertaintyLevels(pessimism.fixed_threshold).to(model.space.reward_low.device)
        self._u_all: list[Tensor] = []
        self._penalty: list[Tensor] = []

    def reset(self, state: Tensor, elite: Tensor | None = None) -> None:
        """Starts B rollouts.

        Args:
            state: initial states ``(B, S)``.
            elite: with ``elite_per_rollout``, the elites to use ``(B,)``; None to sample them.
        """
        self.state = state
        self.coefficients = self.pessimism.coefficients(self.levels.slope())
        if elite is None and self.elite_per_rollout:
            elite = self.sample_elites(state.shape[0])
        self.elite = torch.zeros(state.shape[0], dtype=torch.long, device=state.device) if elite is None else elite
        self.active = torch.ones(state.shape[0], dtype=torch.bool, device=state.device)

    def step(self, action: Tensor) -> Step:
        """Advances all rollouts by one step.

        Args:
            action: ``(B, A, U)``, within bounds.
        """
        model, space, pessimism = self.model, self.model.space, self.pessimism
        prediction = model(self.state, action)
        rows = torch.arange(action.shape[0], device=action.device)
        if not self.elite_per_rollout:
            self.elite = self.sample_elites(len(rows))
        elite = self.elite
        outcome = prediction.mean[elite, rows]
        if self.sample_predictions:
            noise = torch.randn(outcome.shape, generator=self.generator, device=outcome.device)
            outcome = outcome + noise * torch.exp(0.5 * prediction.log_variance[elite, rows])
        outcome = space.target.inverse(outcome)
        state, reward = self.state + outcome[:, :-1], outcome[:, -1]
        if pessimism.clip_to_data:
            state = state.clamp(space.state_low, space.state_high)
            reward = reward.clamp(space.reward_low, space.reward_high)
        state = space.settle(self.state, state)
        uncertainties = uncertainty.measures(
            prediction.mean, prediction.log_variance if pessimism.lambda_aleatoric else None
        )
        u_all = uncertainties[0]
        unknown = u_all > self.levels.limit
        if pessimism.unknown_reward == "lowest":
            reward = torch.where(unknown, torch.minimum(reward, space.reward_low), reward)
        penalty = space.reward_scale * uncertainty.penalty(
            uncertainties, self.coefficients, self.levels.cap, self.levels.typical
        )
        valid = self.active
        false = torch.zeros_like(valid)
        # A stop has priority: where the model is too uncertain, its terminations are not to be believed either.
        stopped = valid & unknown if pessimism.adaptive_horizon else false
        terminated = (
            valid & ~stopped & self._sample_terminations(prediction.termination[elite, rows])
            if model.termination == "learned"
            else false
        )
        self._u_all.append(u_all)
        self._penalty.append(penalty)
        self.active = valid & ~terminated & ~stopped
        self.state = torch.where(valid.unsqueeze(-1), state, self.state)
        return Step(self.state, (reward - penalty) * valid, terminated, false, valid, false, stopped)

    def sample_elites(self, count: int) -> Tensor:
        """Samples elite indices uniformly, ``(count,)``."""
        return torch.randint(self.model.n_elites, (count,), generator=self.generator, device=self.state.device)

    def _sample_terminations(self, logit: Tensor) -> Tensor:
        """Samples terminations with their predicted probability, since rare ones seldom reach a probability of 0.5."""
        uniform = torch.rand(logit.shape, generator=self.generator, device=logit.device)
        return uniform < torch.sigmoid(logit)

    def uncertainties(self) -> Tensor:
        """The disagreement ``u_all`` at every step so far, ``(T, B)``."""
        return torch.stack(self._u_all)

    def penalties(self) -> Tensor:
        """The penalty subtracted from the reward at every step so far, ``(T, B)``."""
        return torch.stack(self._penalty)
