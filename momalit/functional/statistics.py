"""Statistics over the valid steps of all processes, measures of prediction error, and evenly spaced samples."""

from __future__ import annotations

import math
from statistics import NormalDist

import torch
import torch.distributed as dist
from torch import Tensor


def global_moments(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns mean, mean of squares and count of the masked values over all processes.

    Args:
        values: any shape.
        mask: bool of the same shape; True where a value counts.

    Returns:
        three scalars. The means are zero if no value counts.
    """
    masked = values.double() * mask
    sums = torch.stack([masked.sum(), (masked * masked).sum(), mask.sum().double()])
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(sums)
    count = sums[2].clamp(min=1.0)
    return sums[0] / count, sums[1] / count, sums[2]


def global_mean_and_std(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and standard deviation of the masked values over all processes; 0 if no value counts."""
    mean, square, _ = global_moments(values, mask)
    return mean, (square - mean * mean).clamp(min=0).sqrt()


def normalize(values: Tensor, mask: Tensor, epsilon: float = 1e-8) -> Tensor:
    """Normalises to zero mean and unit standard deviation over the masked values of all processes; 0 elsewhere."""
    mean, std = global_mean_and_std(values, mask)
    return ((values - mean) / (std + epsilon) * mask).to(values.dtype)


def explained_variance(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """``1 - Var(target - prediction) / Var(target)`` over the masked values; 0 for a constant target."""
    mean, square, _ = global_moments(target, mask)
    error_mean, error_square, _ = global_moments(target - prediction, mask)
    variance = square - mean**2
    return torch.where(variance > 1e-12, 1 - (error_square - error_mean**2) / variance.clamp(min=1e-12), 0.0)


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's rank correlation of two vectors ``(N,)``. Ties, rare in measured errors, are broken by position."""
    ranks = torch.stack([a.argsort().argsort(), b.argsort().argsort()]).double()
    return torch.corrcoef(ranks)[0, 1]


def student_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t distribution, by its expansion around the normal one (Abramowitz and Stegun, 26.7.5).

    It is exact for one and two degrees of freedom, and at most 1 % too small for three.

    Args:
        probability: between 0 and 1.
        freedom: degrees of freedom, at least 1.
    """
    if freedom == 1:
        return math.tan(math.pi * (probability - 0.5))
    if freedom == 2:
        return (2 * probability - 1) / math.sqrt(2 * probability * (1 - probability))
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, 1))


def evenly_spaced(n: int, count: int) -> Tensor:
    """Returns at most ``count`` indices of n items, evenly spaced."""
    return torch.linspace(0, n - 1, min(n, count), dtype=torch.float64).round().long()
