"""Sized streams of minibatches: whole batches by index, no per-sample collation.

A sized iterable makes Lightning call the epoch's hooks first and ``__iter__`` after them, each once an epoch, and
leaves the sharding over processes to the stream itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset


class Batches(IterableDataset):
    """A stream of known length.

    Args:
        length: batches per epoch.
        draw: makes the epoch's iterator.
    """

    def __init__(self, length: int, draw: Callable[[], Iterator[Any]]) -> None:
        self._length, self._draw = length, draw

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Any]:
        return self._draw()


def loader(length: int, draw: Callable[[], Iterator[Any]]) -> DataLoader:
    """A loader over ready-made batches, in this process."""
    return DataLoader(Batches(length, draw), batch_size=None, num_workers=0)


def generator_for(device: torch.device | str, *key: int) -> torch.Generator:
    """A generator whose stream depends on all of ``key`` (seed, rank, epoch, purpose), not on call order."""
    mixed = 0x9E3779B97F4A7C15
    for part in key:
        mixed = ((mixed ^ (part + 0x7F4A7C15)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        mixed ^= mixed >> 31
    return torch.Generator(device).manual_seed(mixed & 0x7FFFFFFFFFFFFFFF)


def chunks(order: Tensor, size: int) -> Iterator[Tensor]:
    """Consecutive pieces of the last axis; a shorter rest is left out, unless it is all there is."""
    total = order.shape[-1]
    size = min(size, total)
    for begin in range(0, total - size + 1, size):
        yield order[..., begin : begin + size]
