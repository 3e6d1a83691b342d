"""ImaginedEnv: the world model as a batched team environment, pessimistic where it is unsure."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from momalit.core.errors import UserError
from momalit.core.records import Step
from momalit.functional import uncertainty
from momalit.world_model.dynamics import WorldModel

STOP_VALUES = ("pessimistic", "bootstrap")


@dataclass
class Pessimism:
    """How the team is kept where the model is right.

    Uncertainties are in standardised units; penalties count in units of the reward's standard deviation.

    Args:
        lambda_all: λ_all, coefficient of the disagreement about state and reward.
        lambda_reward: λ_reward, coefficient of the disagreement about the reward.
        lambda_aleatoric: λ_aleatoric, coefficient of the largest predicted noise.
        threshold: τ: caps each penalty, and is where the adaptive horizon stops a rollout.
        clip_to_data: clip predicted states and rewards to the dataset's bounding box.
        adaptive_horizon: stop a rollout when the disagreement exceeds τ.
        stop_value: value that follows such a stop: ``pessimistic`` (the worst return of the data) or
            ``bootstrap``.
    """

    lambda_all: float = 1.0
    lambda_reward: float = 1.0
    lambda_aleatoric: float = 0.0
    threshold: float = 1.0
    clip_to_data: bool = True
    adaptive_horizon: bool = True
    stop_value: str = "pessimistic"

    def __post_init__(self) -> None:
        if self.stop_value not in STOP_VALUES:
            raise UserError(
                f"pessimism.stop_value: found {self.stop_value!r}, expected one of {', '.join(STOP_VALUES)}"
            )
        for name in ("lambda_all", "lambda_reward", "lambda_aleatoric"):
            if getattr(self, name) < 0:
                raise UserError(f"pessimism.{name}: found {getattr(self, name)}, expected a number of at least 0")
        if self.threshold <= 0:
            raise UserError(f"pessimism.threshold: found {self.threshold}, expected a number above 0")

    @classmethod
    def none(cls) -> Pessimism:
        """The model as it is, for diagnostics."""
        return cls(lambda_all=0.0, lambda_reward=0.0, lambda_aleatoric=0.0, clip_to_data=True, adaptive_horizon=False)


class ImaginedEnv:
    """B rows of a team's life in the world model.

    Each row takes its whole step (successor, reward, end) from one elite, drawn anew per row and step, or once for the
    row's life. A row that has ended stays where it is, marked invalid, so that shapes stay fixed.

    Args:
        model: the world model.
        pessimism: penalties and limits.
        sample_predictions: add the predicted noise to the elite's mean.
        generator: source of all randomness, on the model's device.
        elite_per_rollout: whether a row stays with the elite it was given.
    """

    def __init__(
        self,
        model: WorldModel,
        pessimism: Pessimism,
        sample_predictions: bool = False,
        generator: torch.Generator | None = None,
        elite_per_rollout: bool = False,
    ) -> None:
        self.model, self.pessimism, self.sample_predictions, self.generator = (
            model,
            pessimism,
            sample_predictions,
            generator,
        )
        self.elite_per_rollout = elite_per_rollout
        self._u_all: list[Tensor] = []
        self._penalty: list[Tensor] = []

    def reset(self, state: Tensor, elite: Tensor | None = None) -> None:
        """Begins in ``state`` ``(B, S)``; rows that stay with an elite take ``elite`` ``(B,)``, or one drawn here."""
        self.state = state
        if elite is None and self.elite_per_rollout:
            elite = self.draw_elites(state.shape[0])
        self.elite = torch.zeros(state.shape[0], dtype=torch.long, device=state.device) if elite is None else elite
        self.alive = torch.ones(state.shape[0], dtype=torch.bool, device=state.device)

    def step(self, action: Tensor) -> Step:
        """One step of all rows.

        Args:
            action: ``(B, A, U)``, within bounds.
        """
        model, space, caution = self.model, self.model.space, self.pessimism
        prediction = model(self.state, action)
        rows = torch.arange(action.shape[0], device=action.device)
        if not self.elite_per_rollout:
            self.elite = self.draw_elites(len(rows))
        elite = self.elite
        outcome = prediction.mean[elite, rows]
        if self.sample_predictions:
            noise = torch.randn(outcome.shape, generator=self.generator, device=outcome.device)
            outcome = outcome + noise * torch.exp(0.5 * prediction.log_variance[elite, rows])
        outcome = space.target.inverse(outcome)
        state, reward = self.state + outcome[:, :-1], outcome[:, -1]
        if caution.clip_to_data:
            state = state.clamp(space.state_low, space.state_high)
            reward = reward.clamp(space.reward_low, space.reward_high)
        u_all = uncertainty.ensemble_covariance_norm(prediction.mean)
        penalised = uncertainty.pessimistic_reward(
            reward,
            u_all,
            uncertainty.ensemble_reward_variance(prediction.mean),
            uncertainty.max_predicted_variance(prediction.log_variance)
            if caution.lambda_aleatoric
            else torch.zeros_like(u_all),
            (caution.lambda_all, caution.lambda_reward, caution.lambda_aleatoric),
            caution.threshold,
            space.reward_scale,
        )
        valid = self.alive
        never = torch.zeros_like(valid)
        terminated = (
            valid & self._ends(prediction.termination[elite, rows]) if model.termination == "learned" else never
        )
        stopped = valid & ~terminated & (u_all > caution.threshold) if caution.adaptive_horizon else never
        self._u_all.append(u_all)
        self._penalty.append(reward - penalised)
        self.alive = valid & ~terminated & ~stopped
        self.state = torch.where(valid.unsqueeze(-1), state, self.state)
        return Step(self.state, penalised * valid, terminated, never, valid, never, stopped)

    def draw_elites(self, rows: int) -> Tensor:
        """Numbers of elites, uniformly, ``(rows,)``."""
        return torch.randint(self.model.n_elites, (rows,), generator=self.generator, device=self.state.device)

    def _ends(self, logit: Tensor) -> Tensor:
        """Draws terminations at their predicted probability: rare ones seldom reach one half, but they do happen."""
        draw = torch.rand(logit.shape, generator=self.generator, device=logit.device)
        return draw < torch.sigmoid(logit)

    def uncertainties(self) -> Tensor:
        """``u_all`` of every step so far, ``(T, B)``."""
        return torch.stack(self._u_all)

    def penalties(self) -> Tensor:
        """What pessimism took from the reward at every step so far, ``(T, B)``."""
        return torch.stack(self._penalty)
