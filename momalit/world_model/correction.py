"""Correction: what held-out data say about the errors of a world model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from momalit.core.records import Transitions
from momalit.core.trajectories import Trajectories
from momalit.functional.uncertainty import ensemble_covariance_norm
from momalit.world_model.dynamics import WorldModel

GROUPS = 10  # of held-out episodes, for cross-validation
RIDGES = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)  # per step; the inputs are standardised
OUTSIDE = 0.99  # quantile of held-out steps beyond which a step is outside the data
SIGNIFICANT = 2.0  # standard errors
LARGEST_SHIFT = 10.0
CHUNK = 1024
SUMS = ("steps", "features", "products", "squares", "variance", "squared_error", "reward_error")
REWARD_SHARE = 0.5  # of the reward in errors, which then count as they do for returns


@dataclass(frozen=True)
class Correction:
    """What to add to the elites' predictions so that they are right on average on held-out data.

    Every elite's signed errors are regressed linearly on its inputs (ridge regression), and its terminations become as
    frequent as they are. How strongly to regularise is chosen for every target by cross-validation over episodes. What
    chance explains as well is left alone: a target is corrected only if that lowers its error on left-out episodes by
    twice the standard error, and terminations only if their number is off by twice its own.

    Args:
        weights: ``(E, 1 + I, D)``, of a constant and the standardised inputs, for standardised targets.
        termination: added to the termination logits, ``(E,)``.
        error_ratio: root mean square error of the elites' mean prediction, as a multiple of their standard deviation;
            at least 1. The reward counts as much as the whole state.
        reward_error: mean square error of the elites' mean prediction of the reward, in variances of the reward.
        largest_uncertainty: 99 % quantile of ``u_all`` on held-out steps.
    """

    weights: Tensor
    termination: Tensor
    error_ratio: float
    reward_error: float
    largest_uncertainty: float

    def change(self, x: Tensor) -> Tensor:
        """What to add to the predictions ``(E, B, D)`` for standardised inputs ``(E, B, I)``."""
        return torch.baddbmm(self.weights[:, :1], x, self.weights[:, 1:])

    @classmethod
    @torch.no_grad()
    def fit(cls, model: WorldModel, data: Trajectories, seed: int = 0) -> Correction:
        """Measures the errors of ``model``.

        Args:
            model: the world model.
            data: episodes that did not train the model, at least one.
            seed: seed of the division into groups.
        """
        random = torch.Generator().manual_seed(seed)
        n_groups = min(GROUPS, len(data.lengths))
        group_of = torch.randperm(len(data.lengths), generator=random) % n_groups
        groups = [_Moments.of(model, data, torch.nonzero(group_of == group).squeeze(1)) for group in range(n_groups)]
        total = _Moments.sum(groups)
        ridge = _best_ridges(groups, total).masked_fill(~model.space.target.varies, torch.inf)
        logits = torch.cat([group.logits for group in groups], 1)
        terminated = torch.cat([group.terminated for group in groups])
        learned = model.termination == "learned"
        shift = [_termination_shift(row, terminated) if learned else 0.0 for row in logits]
        spread = float(total.variance / total.steps) ** 0.5
        error = float(total.squared_error / total.steps) ** 0.5
        uncertainty = torch.cat([group.uncertainty for group in groups])
        rank = max(round(OUTSIDE * len(uncertainty)), 1)
        return cls(
            total.solve(ridge).to(model.space.target.mean.dtype),
            torch.tensor(shift, device=terminated.device),
            max(error / spread, 1.0) if spread > 0 else 1.0,
            float(total.reward_error / total.steps),
            float(uncertainty.kthvalue(rank).values),
        )


@dataclass
class _Moments:
    """Sums over steps: everything that the regression needs. F features, E elites, D targets."""

    steps: float
    features: Tensor  # (F, F)
    products: Tensor  # (E, F, D), of features and errors
    squares: Tensor  # (E, D), of errors
    variance: Tensor  # of the elites' predictions, weighted mean over targets
    squared_error: Tensor  # of the elites' mean prediction, weighted mean over targets
    reward_error: Tensor  # squared, of the elites' mean prediction
    logits: Tensor  # (E, N)
    terminated: Tensor  # (N,)
    uncertainty: Tensor  # (N,)

    @classmethod
    def of(cls, model: WorldModel, data: Trajectories, episodes: Tensor) -> _Moments:
        """The sums over ``episodes``."""
        parts = [cls._of_batch(model, batch) for batch in _batches(data, episodes, model.space.reward_low.device)]
        whole = cls.sum(parts)
        for name in ("logits", "terminated", "uncertainty"):
            setattr(whole, name, torch.cat([getattr(part, name) for part in parts], -1))
        return whole

    @classmethod
    def _of_batch(cls, model: WorldModel, batch: Transitions) -> _Moments:
        space = model.space
        prediction = model(batch.state, batch.action)
        error = ((space.target(space.raw_target(batch)) - prediction.mean) * space.target.varies).double()
        x = space.input(space.raw_input(batch.state, batch.action)).double()
        features = torch.cat([torch.ones_like(x[:, :1]), x], 1)
        weights = space.target_weights(REWARD_SHARE).double()
        members = len(prediction.mean)
        variance = prediction.mean.double().var(0) if members > 1 else torch.zeros_like(error[0])
        return cls(
            len(x),
            features.T @ features,
            features.T @ error,
            error.square().sum(1),
            variance.sum(0) @ weights,
            error.mean(0).square().sum(0) @ weights,
            error.mean(0)[:, -1].square().sum(),
            prediction.termination,
            batch.terminated,
            ensemble_covariance_norm(prediction.mean),
        )

    @classmethod
    def sum(cls, parts: list[_Moments], signs: tuple[int, ...] = ()) -> _Moments:
        """The sums over all parts, with ``signs``. Single steps (logits and so on) are left out."""
        none = parts[0].uncertainty.new_zeros(0)
        pairs = list(zip(signs or (1,) * len(parts), parts, strict=True))

        def total(name: str) -> Any:
            return sum(sign * getattr(part, name) for sign, part in pairs)

        sums = {name: total(name) for name in SUMS}
        return cls(**sums, logits=none, terminated=none, uncertainty=none)

    def without(self, part: _Moments) -> _Moments:
        """The sums without those of a part."""
        return _Moments.sum([self, part], (1, -1))

    def solve(self, ridge: Tensor) -> Tensor:
        """Coefficients ``(E, F, D)`` for a ridge per target ``(D,)``; infinity for none."""
        coefficients = torch.zeros_like(self.products)
        for value in ridge.unique().tolist():
            if value < torch.inf:
                which = ridge == value
                coefficients[..., which] = self.solve_all(value)[..., which]
        return coefficients

    def solve_all(self, ridge: float) -> Tensor:
        """Coefficients ``(E, F, D)`` with the same ridge for all targets."""
        penalty = torch.full_like(self.features[0], ridge * self.steps)
        penalty[0] = 1e-9 * self.steps  # the constant is not shrunk
        return torch.linalg.solve(self.features + penalty.diag(), self.products)

    def error_after(self, coefficients: Tensor) -> Tensor:
        """Sum of squared errors that are left after a correction with ``coefficients``, ``(D,)``."""
        explained = (coefficients * (2 * self.products - self.features @ coefficients)).sum(1)
        return (self.squares - explained).sum(0)


def _batches(data: Trajectories, episodes: Tensor, device: torch.device) -> Iterator[Transitions]:
    for index in data.indices_of(episodes).split(CHUNK):
        yield data.transitions(index).to(device)


def _best_ridges(groups: list[_Moments], total: _Moments) -> Tensor:
    """The ridge with the smallest error on left-out groups, for every target ``(D,)``; infinity for no correction."""
    before = torch.stack([group.squares.sum(0) for group in groups])
    none = torch.full_like(before[0], torch.inf)
    if len(groups) < 2:
        return none
    rest = [total.without(group) for group in groups]
    pairs = list(zip(groups, rest, strict=True))
    after = [[group.error_after(others.solve_all(ridge)) for group, others in pairs] for ridge in RIDGES]
    gains = before - torch.stack([torch.stack(errors) for errors in after])  # (ridges, groups, D)
    best = gains.sum(1).argmax(0)
    gain = gains.gather(0, best.expand(1, len(groups), -1)).squeeze(0)
    certain = gain.mean(0) > SIGNIFICANT * gain.std(0) / len(groups) ** 0.5
    return torch.where(certain, torch.tensor(RIDGES, dtype=none.dtype, device=none.device)[best], none)


def _termination_shift(logits: Tensor, terminated: Tensor) -> float:
    """The shift of the logits ``(N,)`` with which as many steps terminate as did; 0 if chance explains the difference.

    Counts vary by their square root. That of none is not known better than to half a termination.
    """
    happened, predicted = float(terminated.sum()), float(logits.sigmoid().sum())
    if abs(predicted - happened) <= SIGNIFICANT * max(happened, predicted) ** 0.5:
        return 0.0
    low, high, wanted = -LARGEST_SHIFT, LARGEST_SHIFT, max(happened, 0.5)
    for _ in range(40):
        shift = (low + high) / 2
        low, high = (shift, high) if float((logits + shift).sigmoid().sum()) < wanted else (low, shift)
    return (low + high) / 2
