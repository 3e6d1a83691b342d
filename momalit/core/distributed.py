"""Several processes, one training: who does what share, and what they tell each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def is_distributed() -> bool:
    """Whether this process is one of several that train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def process_share(total: int, rank: int, world_size: int) -> int:
    """How many of ``total`` rows are this process's; the first processes take what is left over."""
    return total // world_size + (rank < total % world_size)


def gather_objects(state: Any) -> list[Any]:
    """What every process holds, in the order of their ranks, in all of them. Every process must call this.

    Args:
        state: plain values and tensors; tensors arrive on the CPU.
    """
    state = to_cpu(state)
    if not is_distributed():
        return [state]
    states: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(states, state)
    return states


def to_cpu(state: Any) -> Any:
    """The same values with all tensors on the CPU, each with memory of its own."""
    if isinstance(state, Tensor):
        # A view would take the whole of what it looks at along, into the file too.
        return state.detach().cpu().clone()
    if isinstance(state, dict):
        return {key: to_cpu(value) for key, value in state.items()}
    return [to_cpu(value) for value in state] if isinstance(state, list | tuple) else state


def process_weights(count: Tensor) -> Tensor:
    """What means over this process's valid steps are worth when gradients are averaged over processes.

    Processes have different numbers of valid steps. A mean that each takes of its own, times this weight, averages
    to the mean over the steps of all. Every process must call this.

    Args:
        count: valid steps here, in one batch or in each of several, any shape.

    Returns:
        of that shape, 1 in a single process: valid steps here over the mean number of valid steps.
    """
    count = count.to(torch.float32)
    if not is_distributed():
        return torch.ones_like(count)
    total = count.clone()
    dist.all_reduce(total)
    return count * dist.get_world_size() / total.clamp(min=1.0)


def reweight(means: Tensor, weight: Tensor | None) -> Tensor:
    """Means over valid steps here, times their weight among those of all processes where there are several."""
    return means if weight is None else means * weight


def gather_tensor(values: Tensor) -> Tensor:
    """The same tensor of every process, with their ranks as the first axis; shapes must agree."""
    if not is_distributed():
        return values.unsqueeze(0)
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, values.contiguous())
    return torch.stack(parts)


def mean_over_processes(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The means over processes of scalars on one device, all in one exchange. Every process must call this."""
    if not is_distributed():
        return dict(values)
    means = gather_tensor(torch.stack([value.float() for value in values.values()])).mean(0)
    return dict(zip(values, means, strict=True))
