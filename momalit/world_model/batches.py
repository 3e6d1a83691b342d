"""The batches of the world model's training and evaluation."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from momalit.core.records import Transitions
from momalit.core.symmetries import Symmetries
from momalit.core.trajectories import Trajectories
from momalit.training.batches import keyed_generator, process_chunks


def member_batches(
    data: Trajectories,
    n_members: int,
    members: slice,
    batch_size: int,
    seed: int,
    epoch: int,
    rank: int,
    processes: int,
    symmetries: Symmetries | None = None,
) -> Iterator[Transitions]:
    """Yields batches ``(share, B)`` in which every member iterates over the data in its own order.

    Args:
        data: the training split.
        n_members: M, number of all members.
        members: the members that this process trains.
        batch_size: transitions per member and gradient step, over the processes that divide a batch.
        seed: seed of the orders.
        epoch: the epoch; each has its own orders.
        rank: number of this process.
        processes: number of processes that divide each batch; 1 if they divide the members.
        symmetries: every transition is seen through one of these at random; None for as it is.
    """
    random = keyed_generator("cpu", seed, epoch, 1)
    # The order is the same in every process, and each takes its share of it. 32-bit indices save memory.
    order = torch.empty(n_members, len(data), dtype=torch.int32)
    for member in order:
        torch.randperm(len(data), generator=random, out=member)
    share, device = rank if processes > 1 else 0, data.reward.device
    chunks = process_chunks(order[members], batch_size, processes)
    if symmetries is None:
        for parts in chunks:
            yield data.transitions(parts[..., share, :].to(device, torch.long))
        return
    which = torch.randint(len(symmetries), order.shape, generator=random, dtype=torch.int16)
    symmetries = symmetries.to(device)
    for parts, maps in zip(chunks, process_chunks(which[members], batch_size, processes), strict=True):
        steps = data.transitions(parts[..., share, :].to(device, torch.long))
        yield symmetries.apply(steps, maps[..., share, :].to(device, torch.long))


def ordered_batches(
    data: Trajectories, rank: int, world_size: int, size: int = 4096
) -> tuple[int, Iterator[Transitions]]:
    """Returns the number of batches, the same in all processes, and this process's share of the data in order."""
    length = -(-len(data) // (world_size * size))
    share = torch.arange(len(data)).tensor_split(world_size)[rank if world_size > 1 else 0]
    return length, (data.transitions(index) for index in share.tensor_split(max(length, 1)))
