"""The return of a team in the real task, estimated from data alone: with an interval, and where it is a guess."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from momalit.core.records import Rollout
from momalit.core.trajectories import Trajectories
from momalit.functional.statistics import evenly_spaced, student_quantile
from momalit.functional.uncertainty import ensemble_covariance_norm
from momalit.nn.actors import TeamActor
from momalit.policies.coverage import DataSupport
from momalit.policies.rollout import collect_rollout, initial_start
from momalit.world_model.correction import Correction
from momalit.world_model.dynamics import WorldModel
from momalit.world_model.elite_rollouts import EliteRollouts

PROBABILITY = 0.975  # upper end of 95 % intervals
CHECKED_STEPS = 2_000  # steps of which support by the data is examined


@dataclass(frozen=True)
class EliteReturns:
    """What each elite of a world model expects of a team.

    Args:
        returns: ``(E,)``.
        error_ratio: how much larger the elites' errors on held-out data are than their disagreement there.
    """

    returns: Tensor
    error_ratio: float

    @property
    def mean(self) -> float:
        return float(self.returns.mean())

    @property
    def half_width(self) -> float:
        """Half the width of the mean's 95 % interval; 0 for one elite.

        Elites learn from the same data and share errors, so that their number does not narrow it.
        """
        if len(self.returns) < 2:
            return 0.0
        return student_quantile(PROBABILITY, len(self.returns) - 1) * self.error_ratio * float(self.returns.std())

    def is_below(self, other: EliteReturns) -> bool:
        """Whether the elites agree that this team is worse than another, which began in the same initial states."""
        difference = EliteReturns(self.returns - other.returns, self.error_ratio)
        return difference.mean + difference.half_width < 0


@dataclass(frozen=True)
class ReturnEstimate:
    """The expected undiscounted return of a team.

    Args:
        mean: the estimate.
        low: lower end of its 95 % interval.
        high: upper end.
        outside: share of the team's steps that the dataset does not support; None if it could not be determined. About
            1 % of held-out steps are farther from the data than this allows, and 1 % more uncertain.
        reward_explained: share of the rewards' variance on held-out steps that the world model explains; None without
            any. What it does not explain, a team may have learned to exploit.
        elites: what each elite of the world model expects.
        rollout: the imagined episodes, elite by elite.
    """

    mean: float
    low: float
    high: float
    outside: float | None
    reward_explained: float | None
    elites: EliteReturns
    rollout: Rollout


class ReturnEstimator:
    """Estimates returns by imagined episodes in every elite of a world model, corrected by held-out data.

    The interval covers two things: that the elites disagree, scaled by how much larger their errors on held-out data
    are than their disagreement there, and that only some initial states were tried. It covers nothing about steps
    outside the data.

    Args:
        model: the world model.
        held_out: episodes that did not train the model, for its correction and for initial states.
        train: its training episodes.
        n_steps: the task's horizon.
        episodes: number of imagined episodes, over all elites. If there are too few held-out initial states, those of
            training episodes follow.
        sample_predictions: add the predicted noise to imagined steps.
        deterministic: whether actions are the policies' modes; False samples them.
        seed: seed of the imagined episodes and of the correction.
    """

    def __init__(
        self,
        model: WorldModel,
        held_out: Trajectories,
        train: Trajectories,
        n_steps: int,
        episodes: int = 256,
        sample_predictions: bool = False,
        deterministic: bool = True,
        seed: int = 0,
    ) -> None:
        self.model, self.held_out, self.train, self.n_steps = model, held_out, train, n_steps
        self.sample_predictions, self.deterministic, self.seed = sample_predictions, deterministic, seed
        self.starts = -(-episodes // model.n_elites)

    @cached_property
    def correction(self) -> Correction | None:
        """What the held-out episodes say about the model; None without any."""
        return Correction.fit(self.model, self.held_out, self.seed) if len(self.held_out) else None

    @cached_property
    def support(self) -> DataSupport | None:
        """What the dataset covers; None without held-out episodes."""
        return DataSupport(self.train, self.held_out) if len(self.held_out) else None

    @cached_property
    def initial_states(self) -> Tensor:
        """Initial states ``(N, S)``."""
        parts: list[Tensor] = []
        for data in (self.held_out, self.train):
            first = data.first[: self.starts - sum(len(part) for part in parts)]
            parts.append(data.state[data.row[first]].to(self._device))
        return torch.cat(parts)

    @property
    def _device(self) -> torch.device:
        return self.model.space.reward_low.device

    @torch.no_grad()
    def estimate(self, actor: TeamActor) -> ReturnEstimate:
        """Estimates the return of the team ``actor``, whose networks are on the model's device."""
        generator = torch.Generator(self._device).manual_seed(self.seed)
        noise = None if self.deterministic else torch.Generator(self._device).manual_seed(self.seed + 1)
        env = EliteRollouts(self.model, self.correction, self.sample_predictions, generator)
        states = env.reset(self.initial_states.to(self.model.space.reward_low.dtype))
        rollout = collect_rollout(env, actor, initial_start(states, *actor.mask.shape), self.n_steps, noise)
        returns = rollout.returns.double().view(self.model.n_elites, -1)
        ratio = 1.0 if self.correction is None else self.correction.error_ratio
        elites, by_start = EliteReturns(returns.mean(1).cpu(), ratio), returns.mean(0)
        mean, half = float(returns.mean()), elites.half_width
        if (n := len(by_start)) > 1:
            half = math.hypot(half, student_quantile(PROBABILITY, n - 1) * float(by_start.std()) / math.sqrt(n))
        explained = None if self.correction is None else 1 - self.correction.reward_error
        return ReturnEstimate(mean, mean - half, mean + half, self._outside(rollout), explained, elites, rollout)

    def _outside(self, rollout: Rollout) -> float | None:
        """Share of imagined steps that are farther from the data, or more uncertain, than 99 % of held-out steps."""
        if self.correction is None or self.support is None:
            return None
        steps = torch.nonzero(rollout.valid.flatten()).squeeze(1)
        steps = steps[evenly_spaced(len(steps), CHECKED_STEPS).to(steps.device)]
        state, action = rollout.state[:-1].flatten(0, 1)[steps], rollout.previous_action[1:].flatten(0, 1)[steps]
        uncertain = ensemble_covariance_norm(self.model(state, action).mean) > self.correction.largest_uncertainty
        far = self.support.far(torch.cat([state, action.flatten(1)], 1))
        return float((uncertain.cpu() | far).float().mean())
