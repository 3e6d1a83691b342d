"""The losses of PPO."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``values`` where ``mask`` (same shape, or missing trailing axes of ``values``) holds; zero if nowhere."""
    if values.dim() > mask.dim():
        values = values.flatten(mask.dim()).mean(-1)
    mask = mask.to(values.dtype)
    return (values * mask).sum() / mask.sum().clamp(min=1.0)


def clipped_surrogate(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, valid: Tensor, clip: float = 0.2
) -> Tensor:
    """The clipped objective as a loss, per agent with the team's advantage (Schulman et al., 2017, eq. 7).

    Args:
        log_prob: ``(T, B, A)`` under the current policies.
        old_log_prob: ``(T, B, A)`` under those that acted.
        advantage: ``(T, B)``, normalised.
        valid: ``(T, B)`` bool.
        clip: ε.

    Returns:
        a scalar to be minimised.
    """
    ratio = torch.exp(log_prob - old_log_prob)
    shared = advantage.unsqueeze(-1)
    objective = torch.minimum(ratio * shared, ratio.clamp(1 - clip, 1 + clip) * shared)
    return -masked_mean(objective, valid)


def kl_estimate(log_prob: Tensor, old_log_prob: Tensor, valid: Tensor) -> Tensor:
    """KL(old ‖ new) from samples: the unbiased, always positive estimator ``(r - 1) - log r`` (Schulman, 2020)."""
    log_ratio = log_prob - old_log_prob
    return masked_mean(torch.expm1(log_ratio) - log_ratio, valid)
