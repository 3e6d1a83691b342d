"""Means of scalars over an epoch, accumulated on their device."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Means:
    """Accumulates scalars by name."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], tuple[Tensor, int]] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Adds one value per name, with a single tensor operation."""
        names = tuple(values)
        new = torch.stack([value.detach().float() for value in values.values()])
        total, count = self._sums.get(names, (0.0, 0))
        self._sums[names] = (total + new, count + 1)

    def merge(self, other: Means) -> None:
        """Adds the scalars of ``other``, which have other names."""
        self._sums |= other._sums

    def take(self) -> dict[str, Tensor]:
        """Returns the means since the last call and resets them."""
        sums, self._sums = self._sums, {}
        return {
            name: mean
            for names, (total, count) in sums.items()
            for name, mean in zip(names, total / count, strict=True)
        }
