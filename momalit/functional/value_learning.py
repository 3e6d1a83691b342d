"""Equations of the methods that learn values from a dataset without a model."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from momalit.functional.surrogate import masked_mean


def bootstrapped_target(reward: Tensor, terminated: Tensor, next_value: Tensor, discount: float) -> Tensor:
    """``r + γ V(s')``, or ``r`` if the next state is terminal. A time limit is no termination.

    Args:
        reward: ``(T, B)``.
        terminated: ``(T, B)`` bool.
        next_value: value of the next state, ``(T, B, ...)``.
        discount: γ.

    Returns:
        targets in the shape of ``next_value``.
    """
    reward, continues = (x.reshape(*x.shape, *[1] * (next_value.dim() - x.dim())) for x in (reward, ~terminated))
    return reward + discount * continues * next_value


def expectile_loss(difference: Tensor, expectile: float) -> Tensor:
    """``|τ - 1(u < 0)| u²``, element by element (Kostrikov et al., 2022, implicit Q-learning, section 4.1).

    Its minimiser over a distribution of targets is their τ-expectile. It is the mean for τ = 1/2 and approaches the
    largest target as τ approaches 1.

    Args:
        difference: u = target - prediction, any shape.
        expectile: τ in (0, 1).
    """
    weight = torch.where(difference < 0, 1 - expectile, expectile)
    return weight * difference * difference


def advantage_weights(advantage: Tensor, temperature: float, largest: float) -> Tensor:
    """``min(exp(β A), w_max)``, element by element (Kostrikov et al., 2022, eq. 7, with bounded weights).

    Args:
        advantage: A, any shape.
        temperature: β; 0 gives all actions the same weight, which is behaviour cloning.
        largest: w_max.
    """
    # The exponent is clamped, not the weight, so that exp cannot overflow.
    return torch.exp((temperature * advantage).clamp(max=math.log(largest)))


def conservative_gap(values: Tensor, taken: Tensor, log_density: Tensor | None = None) -> Tensor:
    """``log ∫ exp Q(s, a) da - Q(s, a_data)``, the regulariser of CQL(H) (Kumar et al., 2020, eq. 4).

    With ``log_density``, the integral is estimated by importance sampling from N actions, ``log 1/N Σ exp(Q - log μ)``
    (appendix F of the paper). Without it, the N values are those of all discrete actions, and the sum is exact.

    Args:
        values: Q of N actions, ``(N, ...)``; -inf for an invalid discrete action.
        taken: Q of the action in the dataset, ``(...)``.
        log_density: log-density with which each action was sampled, broadcastable to ``values``.

    Returns:
        the shape of ``taken``.
    """
    if log_density is None:
        return torch.logsumexp(values, 0) - taken
    return torch.logsumexp(values - log_density, 0) - math.log(values.shape[0]) - taken


def value_weight(values: Tensor, valid: Tensor, strength: float) -> Tensor:
    """``λ_i = α / mean |Q_i|``: weight of an agent's Q-values relative to imitation (Fujimoto & Gu, 2021, eq. 5).

    Args:
        values: Q_i of the policies' actions, ``(T, B, A)``.
        valid: ``(T, B)`` bool.
        strength: α.

    Returns:
        weights ``(A,)``, without gradient.
    """
    size = values.detach().abs() * valid.unsqueeze(-1)
    return strength * valid.sum().clamp(min=1) / size.flatten(0, -2).sum(0).clamp(min=1e-6)


def squared_distance(action: Tensor, target: Tensor, valid: Tensor, mask: Tensor) -> Tensor:
    """Mean squared distance between actions over valid steps and action components, without padding.

    Args:
        action: ``(T, B, A, U)``.
        target: the same shape.
        valid: ``(T, B)`` bool.
        mask: 1 for action components, 0 for padding, ``(A, U)``.
    """
    distance = ((action - target).square() * mask).sum((-1, -2)) / mask.sum()
    return masked_mean(distance, valid)


def elite_moments(actions: Tensor, scores: Tensor, elites: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the best actions: one iteration of the cross-entropy method (Rubinstein, 1999).

    Args:
        actions: N candidates ``(N, ..., U)``.
        scores: score of each candidate, ``(N, ...)``.
        elites: number of best candidates to use.

    Returns:
        mean and standard deviation, both ``(..., U)``.
    """
    index = scores.topk(elites, 0).indices.unsqueeze(-1).expand(-1, *actions.shape[1:])
    best = actions.gather(0, index)
    return best.mean(0), best.std(0, correction=0)
