"""Standardisation with statistics stored as buffers, which makes them part of every checkpoint."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from momalit.core.distributed import gather_tensor


class Standardizer(nn.Module):
    """Maps each dimension to zero mean and unit standard deviation.

    A constant dimension (standard deviation up to ``floor``) is only centred. Dividing by a tiny standard deviation
    would turn rounding errors, or small departures from the data, into enormous inputs.

    Args:
        size: number of dimensions.
        floor: dimensions with a standard deviation up to this value count as constant.
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
        """Sets the statistics to those of ``values`` ``(N, size)``, computed in double precision."""
        self.fit_columns(values.split(1, 1))

    @torch.no_grad()
    def fit_columns(self, blocks: Iterable[Tensor]) -> None:
        """Sets the statistics to those of a table that need not be in memory as a whole.

        Args:
            blocks: blocks of one or more columns, ``(N, ...)``, which together form the table ``(N, size)``.
        """
        self.count.zero_()
        self._merge(*torch.cat([_moments(block) for block in blocks], 1))

    @torch.no_grad()
    def update(self, values: Tensor, all_ranks: bool = False) -> None:
        """Merges the statistics of ``values`` into the present ones.

        Args:
            values: new data ``(N, size)``.
            all_ranks: merge the values of all ranks. Every rank must then call this method.
        """
        moments = _moments(values)
        # All ranks merge in rank order, which gives identical rounding.
        for rank_moments in gather_tensor(moments) if all_ranks else [moments]:
            self._merge(*rank_moments)

    def _merge(self, mean: Tensor, variance: Tensor, rows: Tensor) -> None:
        """Merges mean, variance and row count, each ``(size,)``, into the statistics (Chan et al., 1979)."""
        total = self.count + rows[0]
        new_fraction = rows[0] / total
        old_mean, old_variance = self.mean.double(), torch.where(self.varies, self.std.double() ** 2, 0)
        difference = mean - old_mean
        new_mean = old_mean + difference * new_fraction
        between = difference**2 * new_fraction * (1 - new_fraction)
        new_variance = old_variance * (1 - new_fraction) + variance * new_fraction + between
        std = new_variance.sqrt()
        self.mean.copy_(new_mean)
        self.varies.copy_(std > self.floor)
        self.std.copy_(torch.where(self.varies, std, 1.0))
        self.count.copy_(total)

    def forward(self, values: Tensor) -> Tensor:
        """Converts ``(..., size)`` to standardised units."""
        return (values - self.mean) / self.std

    def inverse(self, values: Tensor) -> Tensor:
        """Converts from standardised units; constant dimensions return their constant, whatever ``values`` contains."""
        return values * (self.std * self.varies) + self.mean


def _moments(values: Tensor) -> Tensor:
    """Mean, variance and row count of every column of ``(N, d)``, ``(3, d)`` in double precision."""
    values = values.double()
    mean = values.mean(0)
    return torch.stack([mean, values.var(0, correction=0), torch.full_like(mean, values.shape[0])])


class RunningScale(nn.Module):
    """Running mean and standard deviation of a scalar stream, used for value targets.

    Bias-corrected exponential moving average: the statistics are correct from the first batch on. The moments have 64
    bits, because the variance is a small difference of them where values are large.

    Args:
        rate: weight of a new batch.
        floor: lower bound of the standard deviation.
    """

    first: Tensor
    second: Tensor
    weight: Tensor

    def __init__(self, rate: float = 0.1, floor: float = 1e-2) -> None:
        super().__init__()
        self.rate, self.floor = rate, floor
        for name in ("first", "second", "weight"):
            self.register_buffer(name, torch.zeros((), dtype=torch.float64))

    @property
    def mean(self) -> Tensor:
        return self._moment(self.first)

    @property
    def std(self) -> Tensor:
        """The standard deviation; 1 before the first update."""
        variance = self._moment(self.second) - self._moment(self.first) ** 2
        return torch.where(self.weight > 0, variance.clamp(min=self.floor**2).sqrt(), 1.0)

    def _moment(self, average: Tensor) -> Tensor:
        return average / self.weight.clamp(min=1e-8)

    @torch.no_grad()
    def update(self, mean: Tensor, mean_of_squares: Tensor) -> None:
        """Updates with the first two moments of a batch, already averaged over ranks."""
        self.first.lerp_(mean.to(self.first.dtype), self.rate)
        self.second.lerp_(mean_of_squares.to(self.second.dtype), self.rate)
        self.weight.lerp_(torch.ones_like(self.weight), self.rate)

    def forward(self, values: Tensor) -> Tensor:
        """Converts to normalised units, in the precision of ``values`` ``(N, ...)``."""
        return (values - self.mean) / self.std

    def inverse(self, values: Tensor) -> Tensor:
        """Converts back to units of reward."""
        return values * self.std + self.mean
