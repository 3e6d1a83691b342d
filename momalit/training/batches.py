"""Streams of minibatches with a known length. A batch is indexed as a whole, without per-sample collation.

For an iterable with a length, Lightning calls the epoch's hooks and then ``__iter__``, each once per epoch. It does not
insert a distributed sampler, so the stream itself partitions its batches over processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from momalit.core.errors import UserError
from momalit.core.records import TensorRecord


class UnconvertedBatch:
    """A wrapper that protects a batch from Lightning until ``to`` moves it to the module's device and unwraps it.

    Lightning would otherwise convert the floats of the batch (with ``64-true``), which fails for frozen dataclasses.

    Args:
        batch: an object with a method ``to``.
    """

    def __init__(self, batch: Any) -> None:
        self.batch = batch

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Any:
        """Returns the batch itself on ``device``. Copies to a GPU are asynchronous, from pinned memory."""
        batch, to_gpu = self.batch, torch.device(device).type == "cuda"
        if to_gpu and isinstance(batch, TensorRecord):
            batch = batch.map(lambda tensor: tensor if tensor.is_cuda else tensor.pin_memory())
        return batch.to(device, non_blocking=non_blocking or to_gpu)


class Batches(IterableDataset):
    """A stream with a known length.

    Args:
        length: batches per epoch.
        epoch_batches: returns an iterator over an epoch's batches.
    """

    def __init__(self, length: int, epoch_batches: Callable[[], Iterator[Any]]) -> None:
        self._length, self._epoch_batches = length, epoch_batches

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Any]:
        return map(UnconvertedBatch, self._epoch_batches())


def loader(length: int, epoch_batches: Callable[[], Iterator[Any]]) -> DataLoader:
    """Returns a loader that yields the batches of ``epoch_batches`` without worker processes."""
    # A separate generator leaves the global one unchanged, from which a user's callbacks may sample.
    return DataLoader(Batches(length, epoch_batches), batch_size=None, num_workers=0, generator=torch.Generator())


def keyed_generator(device: torch.device | str, *key: int) -> torch.Generator:
    """Returns a generator seeded by ``key`` (seed, rank, epoch, purpose), so that call order does not matter."""
    mixed = 0x9E3779B97F4A7C15
    for part in key:
        mixed = ((mixed ^ (part + 0x7F4A7C15)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        mixed ^= mixed >> 31
    return torch.Generator(device).manual_seed(mixed & 0x7FFFFFFFFFFFFFFF)


def count_batches(total: int, size: int, world_size: int) -> tuple[int, int]:
    """Computes how ``total`` indices are split into batches of ``size``, each partitioned evenly over processes.

    Returns:
        the number of batches, and the number of indices of a batch that each process handles.

    Raises:
        UserError: there are more processes than indices.
    """
    if 0 < total < world_size:
        raise UserError(
            f"trainer.devices: found {world_size} processes, expected at most {total}, the number of samples in"
            " an epoch"
        )
    part = min(max(size // world_size, 1), max(total // world_size, 1))
    return max(total // (part * world_size), 1), part


def process_chunks(order: Tensor, size: int, world_size: int) -> Iterator[Tensor]:
    """Splits ``order`` into batches along its last axis, each partitioned over processes.

    The parts of all processes together are the batches of a single process, so that training does not depend on the
    number of processes. ``order`` must be the same on every rank.

    Yields:
        the parts of all ranks of one batch, ``(..., world_size, part)``.
    """
    _, part = count_batches(order.shape[-1], size, world_size)
    for batch in chunks(order, part * world_size):
        yield batch.unflatten(-1, (world_size, part))


def chunks(order: Tensor, size: int) -> Iterator[Tensor]:
    """Yields consecutive chunks of the last axis. A shorter last chunk is dropped unless it is the only one."""
    total = order.shape[-1]
    size = min(size, total)
    for begin in range(0, total - size + 1, size):
        yield order[..., begin : begin + size]
