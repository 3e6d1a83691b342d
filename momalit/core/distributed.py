"""Helpers for training in several processes: how work is split and how tensors are exchanged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def is_distributed() -> bool:
    """Returns whether this process is one of several that train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def count_on_rank(total: int, rank: int, world_size: int) -> int:
    """Returns how many of ``total`` items this process handles. The first ranks handle the remainder, one item each."""
    return total // world_size + (rank < total % world_size)


def gather_objects(state: Any) -> list[Any]:
    """Gathers an object from every process. All ranks must call this.

    Args:
        state: plain values and tensors.

    Returns:
        the objects of all ranks, in rank order and with tensors on the CPU. The result is the same on every rank.
    """
    state = to_cpu(state)
    if not is_distributed():
        return [state]
    states: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(states, state)
    return states


def to_cpu(state: Any) -> Any:
    """Returns the same values with every tensor copied to the CPU."""
    if isinstance(state, Tensor):
        # Pickling or saving a view would include the whole of its base tensor's storage; a copy holds only its values.
        return state.detach().cpu().clone()
    if isinstance(state, dict):
        return {key: to_cpu(value) for key, value in state.items()}
    return [to_cpu(value) for value in state] if isinstance(state, list | tuple) else state


def process_weights(count: Tensor) -> Tensor:
    """Returns the weight of this process's means over valid steps when gradients are averaged over processes.

    Processes have different numbers of valid steps. If each process multiplies its own mean by its weight, the average
    over processes is the mean over the valid steps of all processes. All ranks must call this.

    Args:
        count: number of valid steps in this process, for one or several batches, any shape.

    Returns:
        this process's number of valid steps divided by the mean number over processes, in the shape of ``count``. It is
        1 in a single process.
    """
    count = count.to(torch.float32)
    if not is_distributed():
        return torch.ones_like(count)
    total = count.clone()
    dist.all_reduce(total)
    return count * dist.get_world_size() / total.clamp(min=1.0)


def reweight(means: Tensor, weight: Tensor | None) -> Tensor:
    """Multiplies this process's means over valid steps by their weight (see ``process_weights``); None stands for 1."""
    return means if weight is None else means * weight


def gather_tensor(values: Tensor) -> Tensor:
    """Stacks the tensors of all ranks along a new first axis. Their shapes must agree, and all ranks must call this."""
    if not is_distributed():
        return values.unsqueeze(0)
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, values.contiguous())
    return torch.stack(parts)


def mean_over_processes(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Averages scalars on one device over processes, with a single collective operation. All ranks must call this."""
    if not is_distributed():
        return dict(values)
    means = gather_tensor(torch.stack([value.float() for value in values.values()])).mean(0)
    return dict(zip(values, means, strict=True))
