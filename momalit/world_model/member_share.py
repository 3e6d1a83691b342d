"""Dividing an ensemble's members over processes: each trains its own, and they exchange weights once an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from momalit.core.distributed import count_on_rank, gather_tensor, is_distributed
from momalit.nn.ensemble import EnsembleNetwork

WORTHWHILE_OPERATIONS = 1e12  # half a minute of a core with AVX2, where a second process costs about a second
VECTOR = 16  # numbers that a vector register holds at most


def useful_processes(network: EnsembleNetwork, samples: int, most: int) -> int:
    """Returns the least number of processes, up to ``most``, that trains the members as fast as ``most`` would.

    Args:
        network: the whole ensemble.
        samples: transitions times epochs. Below about half a minute of work, one process is enough.
        most: number of processes that are available.
    """
    n_weights = sum(weight.numel() for weight in network.parameters())
    if 6 * n_weights * samples < WORTHWHILE_OPERATIONS:
        return 1
    members = network.highest.shape[0]
    share = -(-members // most)
    return -(-members // share)


def parameter_groups(network: EnsembleNetwork, matrices: bool) -> list[dict[str, Any]]:
    """Returns an optimiser's groups of parameters, those apart that a fused step would round by place in the tensor.

    A fused step computes the last few numbers of a tensor, which do not fill a vector register, by other instructions.
    Which numbers of a member these are would depend on the members that are trained with it.

    Args:
        network: the ensemble.
        matrices: put the matrices of the residual blocks into a group of their own, as ``Muon`` needs.
    """
    hidden = list(network.layers.hidden_matrices()) if matrices else []
    apart = {id(parameter) for parameter in hidden}
    rest = [parameter for parameter in network.parameters() if id(parameter) not in apart]
    whole = [parameter for parameter in rest if parameter[0].numel() % VECTOR == 0]
    others = [parameter for parameter in rest if parameter[0].numel() % VECTOR]
    groups: list[dict[str, Any]] = [{"params": whole}, {"params": others, "fused": False, "foreach": True}]
    return [*groups, {"params": hidden, "matrices": True}] if hidden else groups


class MemberShare:
    """The members that this process trains.

    Members are independent networks, so a process that owns some of them needs no gradients from the others. Each
    member sees the batches that it would see in a single process. With more processes than members, every process
    trains all members, and batches are divided instead.

    Args:
        network: the whole ensemble. The trained network is this one, or a copy of some of its members.
    """

    def __init__(self, network: EnsembleNetwork) -> None:
        self._whole = network
        self._n = network.highest.shape[0]
        self._world_size = dist.get_world_size() if is_distributed() else 1
        self.divided = 1 < self._world_size <= self._n
        self.members = slice(0, self._n)
        self.network = network
        if self.divided:
            counts = [count_on_rank(self._n, rank, self._world_size) for rank in range(self._world_size)]
            begin = sum(counts[: dist.get_rank()])
            self.members = slice(begin, begin + counts[dist.get_rank()])
            own = torch.arange(self._n, device=network.highest.device)[self.members]
            self.network = network.subset(own).requires_grad_(True)

    @property
    def n_own(self) -> int:
        """Number of members that this process trains."""
        return self.members.stop - self.members.start

    def gather(self, values: Tensor) -> Tensor:
        """Combines every process's values of its own members, ``(share, ...)``, to those of all, ``(M, ...)``."""
        if not self.divided:
            return values
        most = count_on_rank(self._n, 0, self._world_size)
        padded = torch.cat([values, values.new_zeros(most - len(values), *values.shape[1:])])
        everyones = gather_tensor(padded)
        counts = (count_on_rank(self._n, rank, self._world_size) for rank in range(self._world_size))
        return torch.cat([part[:count] for part, count in zip(everyones, counts, strict=True)])

    @torch.no_grad()
    def collect(self) -> None:
        """Copies the trained members of every process into the whole ensemble."""
        if self.divided:
            for target, own in zip(self._whole.parameters(), self.network.parameters(), strict=True):
                target.copy_(self.gather(own.detach()))

    def whole_optimizer_state(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the state dict of an optimiser of all members, given that of this process's optimiser."""
        return _map_tensors(state, self.gather)

    def own_optimizer_state(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Inverse of ``whole_optimizer_state``."""
        return _map_tensors(state, lambda values: values[self.members])


def _map_tensors(state: Mapping[str, Any], function: Any) -> dict[str, Any]:
    """Applies a function to an optimiser's tensors that have the members' axis; step counters have none."""
    entries = {
        index: {
            name: function(value) if isinstance(value, Tensor) and value.dim() > 0 else value
            for name, value in entry.items()
        }
        for index, entry in state["state"].items()
    }
    return {**state, "state": entries}
