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

    The value of the successor follows a step, except that nothing follows a termination, and ``stop_value`` (if given)
    follows a step at which the model was too unsure to go on. Nothing flows back over the end of an episode.

    Args:
        reward: ``(T, B)``.
        value: ``(T + 1, B)``, of every state and the last successor, in units of reward.
        terminated: ``(T, B)`` bool.
        truncated: ``(T, B)`` bool.
        stopped: ``(T, B)`` bool.
        valid: ``(T, B)`` bool; steps that do not count get zeros.
        discount: γ.
        gae_lambda: λ.
        stop_value: the value after a stop; None bootstraps from the successor as after a time limit.

    Returns:
        advantages and targets ``advantage + value``, both ``(T, B)``.
    """
    following = value[1:]
    if stop_value is not None:
        following = torch.where(stopped, torch.as_tensor(stop_value, dtype=value.dtype, device=value.device), following)
    following = following * ~terminated
    delta = (reward + discount * following - value[:-1]) * valid
    carry = (discount * gae_lambda) * (valid & ~(terminated | truncated | stopped)).to(value.dtype)
    advantage = torch.empty_like(delta)
    running = torch.zeros_like(delta[0])
    for t in range(delta.shape[0] - 1, -1, -1):
        running = delta[t] + carry[t] * running
        advantage[t] = running
    return advantage, advantage + value[:-1]
