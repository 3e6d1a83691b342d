"""The objective of PPO, and means over valid steps."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

LARGEST_LOG_RATIO = 20.0  # exp of more would soon be infinite, and infinity times 0 is no number


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``values`` where ``mask`` is True; 0 if it is nowhere True.

    Args:
        values: any shape.
        mask: bool of the same shape, or without the trailing axes of ``values``.
    """
    if values.dim() > mask.dim():
        values = values.flatten(mask.dim()).mean(-1)
    mask = mask.to(values.dtype)
    return (values * mask).sum() / mask.sum().clamp(min=1.0)


def masked_means(values: Iterable[Tensor], mask: Tensor) -> Tensor:
    """``masked_mean`` of K tensors in a single matrix product, ``(K,)``."""
    flat = torch.stack([value.mean(-1) if value.dim() > mask.dim() else value for value in values]).flatten(1)
    weight = mask.flatten().to(flat.dtype)
    return flat @ (weight / weight.sum().clamp(min=1.0))


def clipped_objective(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip_epsilon: float = 0.2) -> Tensor:
    """PPO's clipped objective at each step, per agent, with the team's advantage (Schulman et al., 2017, eq. 7).

    Args:
        log_prob: ``(T, B, A)``, under the current policies.
        old_log_prob: ``(T, B, A)``, under the policies that acted.
        advantage: ``(T, B)``, normalised.
        clip_epsilon: ε.

    Returns:
        ``(T, B, A)``.
    """
    ratio = torch.exp((log_prob - old_log_prob).clamp(max=LARGEST_LOG_RATIO))
    shared = advantage.unsqueeze(-1)
    return torch.minimum(ratio * shared, ratio.clamp(1 - clip_epsilon, 1 + clip_epsilon) * shared)


def kl_estimate(log_prob: Tensor, old_log_prob: Tensor) -> Tensor:
    """KL(old ‖ new) at each step: the unbiased, always positive estimator ``(r - 1) - log r`` (Schulman, 2020)."""
    log_ratio = (log_prob - old_log_prob).clamp(max=LARGEST_LOG_RATIO)
    return torch.expm1(log_ratio) - log_ratio
