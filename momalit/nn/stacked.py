"""n networks of the same shape, evaluated together as one network with a leading axis.

Both the world model's ensemble and the team's agents are built from these layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class StackedLinear(nn.Module):
    """n linear layers, evaluated as one batched product.

    Args:
        n: number of layers.
        n_in: input features.
        n_out: output features.
        gain: gain of an orthogonal initialisation; None for the uniform one of ``nn.Linear``, scaled by ``n_in``.

    Shapes:
        ``(n, B, n_in)`` -> ``(n, B, n_out)``. All axes between the first and the last are batch axes.
    """

    def __init__(self, n: int, n_in: int, n_out: int, gain: float | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n, n_in, n_out))
        self.bias = nn.Parameter(torch.zeros(n, 1, n_out))
        if gain is None:
            bound = 1 / math.sqrt(n_in)
            nn.init.uniform_(self.weight, -bound, bound)
            nn.init.uniform_(self.bias, -bound, bound)
        else:
            for weight in self.weight.data:
                nn.init.orthogonal_(weight, gain)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(1, -2)
        return torch.baddbmm(self.bias, rows, self.weight).unflatten(1, x.shape[1:-1])

    def extra_repr(self) -> str:
        n, n_in, n_out = self.weight.shape
        return f"n={n}, n_in={n_in}, n_out={n_out}"


class StackedMLP(nn.Sequential):
    """n multi-layer perceptrons of the same shape.

    Args:
        n: number of networks.
        n_in: input features.
        hidden_sizes: width of each hidden layer.
        n_out: output features.
        activation: the activation function between layers.

    Shapes:
        ``(n, ..., n_in)`` -> ``(n, ..., n_out)``.
    """

    def __init__(
        self, n: int, n_in: int, hidden_sizes: Sequence[int], n_out: int, activation: type[nn.Module] = nn.SiLU
    ) -> None:
        sizes = [n_in, *hidden_sizes]
        layers: list[nn.Module] = []
        for a, b in pairwise(sizes):
            layers += [StackedLinear(n, a, b), activation()]
        super().__init__(*layers, StackedLinear(n, sizes[-1], n_out))


class StackedLayerNorm(nn.Module):
    """Layer normalisation (Ba et al., 2016) of n networks, each with its own scale and shift.

    Args:
        n: number of networks.
        size: features.

    Shapes:
        ``(n, ..., size)`` -> the same.
    """

    def __init__(self, n: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n, 1, size))
        self.bias = nn.Parameter(torch.zeros(n, 1, size))

    def forward(self, x: Tensor) -> Tensor:
        rows = F.layer_norm(x.flatten(1, -2), x.shape[-1:])
        return torch.addcmul(self.bias, rows, self.weight).unflatten(1, x.shape[1:-1])


class StackedResidualNetwork(nn.Module):
    """n residual networks of the same shape: a linear layer, pre-norm blocks ``x + W₂ SiLU(W₁ LN(x))``, LN, linear.

    Pre-norm blocks (Xiong et al., 2020) train fast at high learning rates.

    Args:
        n: number of networks.
        n_in: input features.
        width: features between the blocks and within them.
        n_blocks: number of blocks, at least 0.
        n_out: output features.

    Shapes:
        ``(n, ..., n_in)`` -> ``(n, ..., n_out)``.
    """

    def __init__(self, n: int, n_in: int, width: int, n_blocks: int, n_out: int) -> None:
        super().__init__()
        self.first = StackedLinear(n, n_in, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                StackedLayerNorm(n, width), StackedLinear(n, width, width), nn.SiLU(), StackedLinear(n, width, width)
            )
            for _ in range(n_blocks)
        )
        self.norm = StackedLayerNorm(n, width)
        self.last = StackedLinear(n, width, n_out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        last: Tensor = self.last(self.norm(x))
        return last

    def hidden_matrices(self) -> Iterator[nn.Parameter]:
        """The weight matrices of the blocks, each ``(n, width, width)``."""
        yield from (layer.weight for layer in self.blocks.modules() if isinstance(layer, StackedLinear))
