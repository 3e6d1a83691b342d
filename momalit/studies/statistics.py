"""Statistics for few runs: interquartile means, bootstrap intervals, probabilities of improvement.

The definitions are those of Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice"
(NeurIPS 2021). A group is one task, dataset and setting. A method has one score per seed in each group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Scores = NDArray[np.float64]
Statistic = Callable[[Sequence[Scores]], Scores]

RESAMPLES = 10_000
CONFIDENCE = 0.95


def interquartile_mean(values: ArrayLike) -> Scores:
    """Returns the mean of the middle half of the values.

    If N is not divisible by 4, the values at the two edges have fractional weights, so that exactly a quarter of the
    weight is dropped on each side. For one or two values, it is the ordinary mean.

    Args:
        values: ``(..., N)``.

    Returns:
        ``(...)``.
    """
    ordered = np.sort(np.asarray(values, float), axis=-1)
    n = ordered.shape[-1]
    edges = np.arange(n + 1)
    weight = np.diff(edges.clip(n / 4, 3 * n / 4))
    return np.asarray(ordered @ weight / weight.sum())


def pooled_mean(groups: Sequence[Scores]) -> Scores:
    """Returns the mean over all values of the groups ``(..., N_g)``."""
    return np.asarray(np.concatenate(groups, -1).mean(-1))


def pooled_interquartile_mean(groups: Sequence[Scores]) -> Scores:
    """Returns the interquartile mean over all values of the groups ``(..., N_g)``."""
    return interquartile_mean(np.concatenate(groups, -1))


def bootstrap_interval(
    groups: Sequence[ArrayLike],
    statistic: Statistic = pooled_mean,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Returns the bounds of a percentile interval by the stratified bootstrap. The result is deterministic.

    Args:
        groups: the strata ``(N_g,)``, each of which is resampled separately.
        statistic: function from groups ``(R, N_g)`` to ``(R,)``.
        confidence: nominal coverage of the interval.
        resamples: R, the number of bootstrap samples.
        seed: seed of the resampling.
    """
    random = np.random.default_rng(seed)
    resampled = []
    for group in groups:
        sample = np.asarray(group, float)
        resampled.append(sample[random.integers(len(sample), size=(resamples, len(sample)))])
    low, high = np.quantile(statistic(resampled), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def probability_of_improvement(ours: Sequence[ArrayLike], theirs: Sequence[ArrayLike]) -> Scores:
    """Returns the probability that a run of ours has a higher score than one of theirs. A tie counts as half.

    Args:
        ours: scores ``(..., N_g)`` in each group.
        theirs: scores ``(..., M_g)`` in the same groups.

    Returns:
        the mean over groups, ``(...)``.
    """
    wins = []
    for x, y in zip(ours, theirs, strict=True):
        a, b = np.asarray(x, float)[..., :, None], np.asarray(y, float)[..., None, :]
        wins.append(((a > b) + 0.5 * (a == b)).mean((-1, -2)))
    return np.asarray(np.mean(wins, axis=0))


def improvement_interval(
    ours: Sequence[ArrayLike], theirs: Sequence[ArrayLike], resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Returns an interval of ``probability_of_improvement`` by the stratified bootstrap over both methods' runs."""
    n_groups = len(ours)
    return bootstrap_interval(
        [*ours, *theirs],
        lambda groups: probability_of_improvement(groups[:n_groups], groups[n_groups:]),
        resamples=resamples,
        seed=seed,
    )
