"""Uncertainty of an ensemble and the reward penalty for it.

All measures are in standardised units, so that a coefficient has the same meaning on every task.
"""

from __future__ import annotations

import torch
from torch import Tensor

from momalit.functional.precision import full_precision


def ensemble_covariance_norm(mean: Tensor) -> Tensor:
    """``u_all``: Frobenius norm of the covariance of the elites' predictions of state change and reward.

    The D×D covariance is not computed: with centred predictions C (E×D), its norm is ‖C Cᵀ‖_F / (E - 1).

    Args:
        mean: predicted means ``(E, B, D)``, standardised.

    Returns:
        ``(B,)``; zero for a single member.
    """
    members = mean.shape[0]
    if members == 1:
        return mean.new_zeros(mean.shape[1])
    centred = (mean - mean.mean(0)).transpose(0, 1)
    with full_precision(centred):
        gram = centred @ centred.transpose(1, 2)
    return gram.flatten(1).norm(dim=1) / (members - 1)


def ensemble_reward_variance(mean: Tensor) -> Tensor:
    """``u_reward``: variance over the elites of the predicted reward, the last dimension of ``mean`` ``(E, B, D)``."""
    if mean.shape[0] == 1:
        return mean.new_zeros(mean.shape[1])
    return mean[..., -1].var(0)


def max_predicted_variance(log_variance: Tensor) -> Tensor:
    """``u_aleatoric``: the largest norm over the elites of the predicted variances ``(E, B, D)`` (as in MOPO)."""
    return log_variance.exp().norm(dim=-1).amax(0)


def measures(mean: Tensor, log_variance: Tensor | None = None) -> Tensor:
    """``u_all``, ``u_reward`` and ``u_aleatoric`` of predictions ``(E, B, D)``, stacked: ``(3, B)``.

    Without ``log_variance``, ``u_aleatoric`` is 0.
    """
    u_all = ensemble_covariance_norm(mean)
    noise = torch.zeros_like(u_all) if log_variance is None else max_predicted_variance(log_variance)
    return torch.stack([u_all, ensemble_reward_variance(mean), noise])


def penalty(
    uncertainties: Tensor, coefficients: tuple[float | Tensor, float, float], cap: Tensor, typical: Tensor
) -> Tensor:
    """``Σ_k λ_k max(min(u_k, cap_k) - ū_k, 0)``, in standard deviations of the reward.

    Args:
        uncertainties: ``(3, B)``, see ``measures``.
        coefficients: λ of the three uncertainties.
        cap: the uncertainties from which on a penalty does not grow, ``(3,)``.
        typical: ū, the uncertainties up to which a step costs nothing, ``(3,)``.

    Returns:
        ``(B,)``.
    """
    excess = (uncertainties.clamp(max=cap.unsqueeze(1)) - typical.unsqueeze(1)).clamp(min=0)
    # A tensor of the coefficients would be copied to the accelerator at every imagined step.
    first, second, third = (weight * row for weight, row in zip(coefficients, excess, strict=True))
    return first + second + third
