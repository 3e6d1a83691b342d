"""Means of scalars over an epoch, gathered without leaving the device."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Means:
    """Sums of scalars by name."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], tuple[Tensor, int]] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Takes in one value per name, all at once."""
        names = tuple(values)
        new = torch.stack([value.detach().float() for value in values.values()])
        total, count = self._sums.get(names, (0.0, 0))
        self._sums[names] = (total + new, count + 1)

    def take(self) -> dict[str, Tensor]:
        """The means since the last time; begins anew."""
        sums, self._sums = self._sums, {}
        return {
            name: mean
            for names, (total, count) in sums.items()
            for name, mean in zip(names, total / count, strict=True)
        }
