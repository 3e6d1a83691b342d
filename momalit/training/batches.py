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

from momalit.core.errors import UserError
from momalit.core.records import TensorRecord


class Sealed:
    """A batch on its way from a stream to the device of its module, where it is unsealed.

    On the way Lightning converts the floats of what it gets (with ``64-true``), and fails on frozen records.

    Args:
        batch: what moves by ``to``.
    """

    def __init__(self, batch: Any) -> None:
        self.batch = batch

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Any:
        """The batch itself, on ``device``; a GPU fetches it from pinned memory while the program goes on."""
        batch, fetched = self.batch, torch.device(device).type == "cuda"
        if fetched and isinstance(batch, TensorRecord):
            batch = batch.map(lambda tensor: tensor if tensor.is_cuda else tensor.pin_memory())
        return batch.to(device, non_blocking=non_blocking or fetched)


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
        return map(Sealed, self._draw())


def loader(length: int, draw: Callable[[], Iterator[Any]]) -> DataLoader:
    """A loader over ready-made batches, in this process."""
    # With a generator of its own it leaves the global one alone, which a user's callbacks may draw from.
    return DataLoader(Batches(length, draw), batch_size=None, num_workers=0, generator=torch.Generator())


def keyed_generator(device: torch.device | str, *key: int) -> torch.Generator:
    """A generator whose stream depends on all of ``key`` (seed, rank, epoch, purpose), not on call order."""
    mixed = 0x9E3779B97F4A7C15
    for part in key:
        mixed = ((mixed ^ (part + 0x7F4A7C15)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        mixed ^= mixed >> 31
    return torch.Generator(device).manual_seed(mixed & 0x7FFFFFFFFFFFFFFF)


def count_batches(total: int, size: int, world_size: int) -> tuple[int, int]:
    """How ``total`` indices are cut into batches of ``size`` that processes share out evenly.

    Returns:
        the number of batches, and the size of each process's part of one.

    Raises:
        UserError: there are more processes than indices.
    """
    if 0 < total < world_size:
        raise UserError(
            f"trainer.devices: found {world_size} processes, expected at most {total}, for that is all a pass over the"
            " log gives them to share out"
        )
    part = min(max(size // world_size, 1), max(total // world_size, 1))
    return max(total // (part * world_size), 1), part


def process_chunks(order: Tensor, size: int, world_size: int) -> Iterator[Tensor]:
    """The batches that ``order``, the same in every process, is cut into along its last axis, shared out.

    Together the parts are the batches that a single process would take, so that several learn what one does.

    Returns:
        for each batch the part of every process, ``(..., world_size, part)``.
    """
    _, part = count_batches(order.shape[-1], size, world_size)
    for whole in chunks(order, part * world_size):
        yield whole.unflatten(-1, (world_size, part))


def chunks(order: Tensor, size: int) -> Iterator[Tensor]:
    """Consecutive pieces of the last axis; a shorter rest is left out, unless it is all there is."""
    total = order.shape[-1]
    size = min(size, total)
    for begin in range(0, total - size + 1, size):
        yield order[..., begin : begin + size]
