"""Standardisation by statistics that are buffers, so that a checkpoint is complete."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from momalit.core.distributed import gather_tensor


class Standardizer(nn.Module):
    """Maps each dimension to zero mean and unit deviation.

    A dimension that does not vary (deviation below ``floor``) is only centred: dividing by next to nothing would turn
    rounding, or the smallest step away from the data, into an enormous input.

    Args:
        size: number of dimensions.
        floor: smallest deviation that counts as variation.
    """

    mean: Tensor
    std: Tensor
    varies: Tensor
    count: Tensor

    def __init__(self, size: int, floor: float = 1e-6) -> None:
        super().__init__()
        self.floor = floor
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))
        self.register_buffer("varies", torch.ones(size, dtype=torch.bool))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def fit(self, values: Tensor) -> None:
        """Takes the statistics of ``values`` ``(N, size)``, accumulated in double precision."""
        self.fit_columns(values.split(1, 1))

    @torch.no_grad()
    def fit_columns(self, blocks: Iterable[Tensor]) -> None:
        """Takes the statistics of a table that need not be there as a whole.

        Args:
            blocks: of a column or a few, ``(N, ...)``; together the table ``(N, size)``.
        """
        self.count.zero_()
        self._merge(*torch.cat([_moments(block) for block in blocks], 1))

    @torch.no_grad()
    def update(self, values: Tensor, of_all: bool = False) -> None:
        """Merges the statistics of ``values`` ``(N, size)`` into what was seen before.

        Args:
            values: what was seen.
            of_all: whether each process has seen others, which all of them take in. Every process must call this then.
        """
        moments = _moments(values)
        # Merged in the order of ranks, so that all processes round alike.
        for seen in gather_tensor(moments) if of_all else [moments]:
            self._merge(*seen)

    def _merge(self, mean: Tensor, variance: Tensor, rows: Tensor) -> None:
        """Chan et al. (1979); each ``(size,)``."""
        total = self.count + rows[0]
        share = rows[0] / total
        old_mean, old_variance = self.mean.double(), torch.where(self.varies, self.std.double() ** 2, 0)
        difference = mean - old_mean
        new_mean = old_mean + difference * share
        new_variance = old_variance * (1 - share) + variance * share + difference**2 * share * (1 - share)
        std = new_variance.sqrt()
        self.mean.copy_(new_mean)
        self.varies.copy_(std > self.floor)
        self.std.copy_(torch.where(self.varies, std, 1.0))
        self.count.copy_(total)

    def forward(self, values: Tensor) -> Tensor:
        """To standardised units, ``(..., size)``."""
        return (values - self.mean) / self.std

    def inverse(self, values: Tensor) -> Tensor:
        """From standardised units; a dimension that does not vary takes its constant value."""
        return values * (self.std * self.varies) + self.mean


def _moments(values: Tensor) -> Tensor:
    """Mean, variance and number of rows of every column of ``(N, d)``, in double precision ``(3, d)``."""
    wide = values.double()
    mean = wide.mean(0)
    return torch.stack([mean, wide.var(0, correction=0), torch.full_like(mean, values.shape[0])])


class RunningScale(nn.Module):
    """Running mean and deviation of a scalar stream, for value targets.

    An exponential average with the bias of its start removed, so that the first batch already gives proper statistics.

    Args:
        rate: weight of a new batch.
        floor: smallest deviation.
    """

    first: Tensor
    second: Tensor
    weight: Tensor

    def __init__(self, rate: float = 0.1, floor: float = 1e-2) -> None:
        super().__init__()
        self.rate, self.floor = rate, floor
        for name in ("first", "second", "weight"):
            self.register_buffer(name, torch.zeros(()))

    @property
    def mean(self) -> Tensor:
        return self.first / self.weight.clamp(min=1e-8)

    @property
    def std(self) -> Tensor:
        """The deviation; one before anything was seen."""
        variance = self.second / self.weight.clamp(min=1e-8) - self.mean**2
        return torch.where(self.weight > 0, variance.clamp(min=self.floor**2).sqrt(), 1.0)

    @torch.no_grad()
    def update(self, mean: Tensor, mean_of_squares: Tensor) -> None:
        """Takes in a batch by its first two moments (already reduced over processes)."""
        self.first.lerp_(mean.to(self.first.dtype), self.rate)
        self.second.lerp_(mean_of_squares.to(self.second.dtype), self.rate)
        self.weight.lerp_(torch.ones_like(self.weight), self.rate)

    def forward(self, values: Tensor) -> Tensor:
        """To normalised units."""
        return (values - self.mean) / self.std

    def inverse(self, values: Tensor) -> Tensor:
        """Back to units of reward."""
        return values * self.std + self.mean
