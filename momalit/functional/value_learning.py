"""The equations of the methods that learn values from a log without a model."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from momalit.functional.surrogate import masked_mean


def bootstrapped_target(reward: Tensor, terminated: Tensor, following: Tensor, discount: float) -> Tensor:
    """``r + γ V(s')`` where the task goes on, ``r`` where it ended; a time limit ends nothing.

    Args:
        reward: ``(T, B)``.
        terminated: ``(T, B)`` bool.
        following: value of the successor, ``(T, B, ...)``.
        discount: γ.

    Returns:
        the shape of ``following``.
    """
    reward, goes_on = (x.reshape(*x.shape, *[1] * (following.dim() - x.dim())) for x in (reward, ~terminated))
    return reward + discount * goes_on * following


def expectile_loss(difference: Tensor, expectile: float) -> Tensor:
    """``|τ - 1(u < 0)| u²``, element by element (Kostrikov et al., 2022, implicit Q-learning, section 4.1).

    Its minimiser over a distribution of targets is their τ-expectile: the mean for τ = 1/2, towards the largest as τ
    nears 1.

    Args:
        difference: u = target - prediction, any shape.
        expectile: τ in (0, 1).
    """
    weight = torch.where(difference < 0, 1 - expectile, expectile)
    return weight * difference * difference


def advantage_weights(advantage: Tensor, temperature: float, largest: float) -> Tensor:
    """``min(exp(β A), w_max)``, element by element (Kostrikov et al., 2022, eq. 7, with the weights bounded).

    Args:
        advantage: A, any shape.
        temperature: β; 0 weighs all alike, which is behaviour cloning.
        largest: w_max.
    """
    # The exponent is bounded rather than the weight, so that nothing overflows on the way.
    return torch.exp((temperature * advantage).clamp(max=math.log(largest)))


def conservative_gap(values: Tensor, taken: Tensor, log_density: Tensor | None = None) -> Tensor:
    """``log ∫ exp Q(s, a) da - Q(s, a_log)``, the regulariser CQL(H) (Kumar et al., 2020, eq. 4).

    With ``log_density`` the integral is estimated by importance sampling from N actions, ``log 1/N Σ exp(Q - log μ)``
    (there, appendix F); without it the N values are those of all the choices, and the sum is exact.

    Args:
        values: Q of N actions, ``(N, ...)``; -inf for a choice that is not allowed.
        taken: Q of the action in the log, ``(...)``.
        log_density: log-density with which each action was drawn, broadcastable to ``values``.

    Returns:
        the shape of ``taken``.
    """
    if log_density is None:
        return torch.logsumexp(values, 0) - taken
    return torch.logsumexp(values - log_density, 0) - math.log(values.shape[0]) - taken


def value_weight(values: Tensor, valid: Tensor, strength: float) -> Tensor:
    """``λ_i = α / mean |Q_i|``: what an agent's values weigh against imitation (Fujimoto & Gu, 2021, eq. 5).

    Args:
        values: Q_i of the policies' actions, ``(T, B, A)``.
        valid: ``(T, B)`` bool.
        strength: α.

    Returns:
        ``(A,)``, without gradient.
    """
    size = values.detach().abs() * valid.unsqueeze(-1)
    return strength * valid.sum().clamp(min=1) / size.flatten(0, -2).sum(0).clamp(min=1e-6)


def squared_distance(action: Tensor, wanted: Tensor, valid: Tensor, mask: Tensor) -> Tensor:
    """Mean squared distance of actions over valid steps and real components.

    Args:
        action: ``(T, B, A, U)``.
        wanted: the same shape.
        valid: ``(T, B)`` bool.
        mask: 1 where a component is real, ``(A, U)``.
    """
    each = ((action - wanted).square() * mask).sum((-1, -2)) / mask.sum()
    return masked_mean(each, valid)


def elite_moments(actions: Tensor, scores: Tensor, elites: int) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the best actions: one iteration of the cross-entropy method (Rubinstein, 1999).

    Args:
        actions: N candidates ``(N, ..., U)``.
        scores: what each is worth, ``(N, ...)``.
        elites: how many of the best to keep.

    Returns:
        two tensors ``(..., U)``.
    """
    best = scores.topk(elites, 0).indices.unsqueeze(-1).expand(-1, *actions.shape[1:])
    kept = actions.gather(0, best)
    return kept.mean(0), kept.std(0, correction=0)
