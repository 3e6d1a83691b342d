"""What few runs can say: interquartile means, bootstrap intervals, probabilities of improvement.

The definitions are those of Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice"
(NeurIPS 2021). A group is one task, dataset and setting; a method has one score per seed in every group.
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
    """Mean of the middle half of the values.

    Where a quarter of them is no whole number, the two values at the edges count in part, so that exactly a quarter of
    the weight is left out on either side. One value is its own mean, and so are two.

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
    """Mean over all values of groups ``(..., N_g)``."""
    return np.asarray(np.concatenate(groups, -1).mean(-1))


def pooled_interquartile_mean(groups: Sequence[Scores]) -> Scores:
    """Interquartile mean over all values of groups ``(..., N_g)``."""
    return interquartile_mean(np.concatenate(groups, -1))


def bootstrap_interval(
    groups: Sequence[ArrayLike],
    statistic: Statistic = pooled_mean,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of the stratified bootstrap, the same for the same values.

    Args:
        groups: the strata ``(N_g,)``; each is resampled within itself.
        statistic: of groups ``(R, N_g)``, gives ``(R,)``.
        confidence: probability that the interval is meant to cover.
        resamples: R, the number of bootstrap samples.
        seed: of the resampling.
    """
    random = np.random.default_rng(seed)
    drawn = []
    for group in groups:
        sample = np.asarray(group, float)
        drawn.append(sample[random.integers(len(sample), size=(resamples, len(sample)))])
    low, high = np.quantile(statistic(drawn), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def probability_of_improvement(ours: Sequence[ArrayLike], theirs: Sequence[ArrayLike]) -> Scores:
    """Probability that a run of ours beats one of theirs, the mean over groups; a tie counts as half.

    Args:
        ours: scores ``(..., N_g)`` in every group.
        theirs: scores ``(..., M_g)`` in the same groups.

    Returns:
        ``(...)``.
    """
    wins = []
    for x, y in zip(ours, theirs, strict=True):
        a, b = np.asarray(x, float)[..., :, None], np.asarray(y, float)[..., None, :]
        wins.append(((a > b) + 0.5 * (a == b)).mean((-1, -2)))
    return np.asarray(np.mean(wins, axis=0))


def improvement_interval(
    ours: Sequence[ArrayLike], theirs: Sequence[ArrayLike], resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Interval of ``probability_of_improvement`` by the stratified bootstrap over the runs of both."""
    half = len(ours)
    return bootstrap_interval(
        [*ours, *theirs],
        lambda groups: probability_of_improvement(groups[:half], groups[half:]),
        resamples=resamples,
        seed=seed,
    )
