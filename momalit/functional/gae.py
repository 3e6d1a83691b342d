"""Generalised advantage estimation."""

from __future__ import annotations

import torch
from torch import Tensor


def generalized_advantage(
    reward: Tensor,
    value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    stopped: Tensor,
    valid: Tensor,
    discount: float = 0.99,
    gae_lambda: float = 0.95,
    stop_value: Tensor | float | None = None,
) -> tuple[Tensor, Tensor]:
    """Advantages and λ-returns (Schulman et al., 2016, eq. 16).

    A step bootstraps from the value of the next state. There are two exceptions: a terminal state has the value 0, and
    ``stop_value`` (if given) limits the value where the rollout stopped because the model was too uncertain. It only
    limits it, because a critic that still values everything below it would make a stop the best that can happen. The
    trace does not cross the end of an episode.

    Args:
        reward: ``(T, B)``.
        value: ``(T + 1, B)``, values of all states and of the last next state, in units of reward.
        terminated: ``(T, B)`` bool.
        truncated: ``(T, B)`` bool.
        stopped: ``(T, B)`` bool.
        valid: ``(T, B)`` bool; the advantage of invalid steps is 0.
        discount: γ.
        gae_lambda: λ.
        stop_value: the highest value after a stop; None bootstraps from the next state, as after a time limit.

    Returns:
        advantages and targets ``advantage + value``, both ``(T, B)``.
    """
    next_value = value[1:]
    if stop_value is not None:
        pessimistic = torch.as_tensor(stop_value, dtype=value.dtype, device=value.device)
        next_value = torch.where(stopped, torch.minimum(pessimistic, next_value), next_value)
    next_value = next_value * ~terminated
    delta = (reward + discount * next_value - value[:-1]) * valid
    carry = (discount * gae_lambda) * (valid & ~(terminated | truncated | stopped)).to(value.dtype)
    advantage = torch.empty_like(delta)
    running = torch.zeros_like(delta[0])
    for t in range(delta.shape[0] - 1, -1, -1):
        running = delta[t] + carry[t] * running
        advantage[t] = running
    return advantage, advantage + value[:-1]
