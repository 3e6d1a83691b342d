"""Random functions that never train, which make the members of an ensemble differ where there are no data."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

FEATURES = 64


class RandomPriors(nn.Module):
    """n random functions with the variance of one unit, one for each member of an ensemble.

    A member that adds such a function to its output has to unlearn it where there are data, and cannot elsewhere
    (randomised prior functions; Osband, Aslanides, Cassirer, 2018). Each is a sum of ``FEATURES`` cosines with random
    frequencies, which approximates a sample of a Gaussian process (random Fourier features; Rahimi and Recht, 2007).
    Its correlation is 1/e at the typical distance of two standardised samples, whatever the number of inputs.

    Args:
        n: number of functions.
        n_in: input features, standardised.
        n_out: output features.

    Shapes:
        ``(n, B, n_in)`` -> ``(n, B, n_out)``.
    """

    frequency: Tensor
    phase: Tensor
    readout: Tensor

    def __init__(self, n: int, n_in: int, n_out: int) -> None:
        super().__init__()
        self.register_buffer("frequency", torch.randn(n, n_in, FEATURES) / math.sqrt(n_in))
        self.register_buffer("phase", torch.rand(n, 1, FEATURES) * 2 * math.pi)
        self.register_buffer("readout", torch.randn(n, FEATURES, n_out) * math.sqrt(2 / FEATURES))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cos(torch.baddbmm(self.phase, x, self.frequency)) @ self.readout
