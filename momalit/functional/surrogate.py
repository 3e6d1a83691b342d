"""The objective of PPO and its means over valid steps."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``values`` where ``mask`` (same shape, or missing trailing axes of ``values``) holds; zero if nowhere."""
    if values.dim() > mask.dim():
        values = values.flatten(mask.dim()).mean(-1)
    mask = mask.to(values.dtype)
    return (values * mask).sum() / mask.sum().clamp(min=1.0)


def masked_means(values: Iterable[Tensor], mask: Tensor) -> Tensor:
    """``masked_mean`` of several, all at once, ``(K,)``."""
    each = torch.stack([value.mean(-1) if value.dim() > mask.dim() else value for value in values]).flatten(1)
    weight = mask.flatten().to(each.dtype)
    return each @ (weight / weight.sum().clamp(min=1.0))


def clipped_objective(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip_epsilon: float = 0.2) -> Tensor:
    """What PPO maximises at each step, per agent with the team's advantage (Schulman et al., 2017, eq. 7).

    Args:
        log_prob: ``(T, B, A)`` under the current policies.
        old_log_prob: ``(T, B, A)`` under those that acted.
        advantage: ``(T, B)``, normalised.
        clip_epsilon: ε.

    Returns:
        ``(T, B, A)``.
    """
    ratio = torch.exp(log_prob - old_log_prob)
    shared = advantage.unsqueeze(-1)
    return torch.minimum(ratio * shared, ratio.clamp(1 - clip_epsilon, 1 + clip_epsilon) * shared)


def kl_estimate(log_prob: Tensor, old_log_prob: Tensor) -> Tensor:
    """KL(old ‖ new) at each step: the unbiased, always positive estimator ``(r - 1) - log r`` (Schulman, 2020)."""
    log_ratio = log_prob - old_log_prob
    return torch.expm1(log_ratio) - log_ratio
