"""The networks of a probabilistic dynamics ensemble."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from momalit.functional.precision import at_least_float32
from momalit.nn.random_priors import RandomPriors
from momalit.nn.stacked import StackedResidualNetwork


class Prediction(NamedTuple):
    """Predictions of all members, in standardised units.

    Args:
        mean: ``(M, B, D)``, the state change followed by the reward.
        log_variance: ``(M, B, D)``.
        termination: logit that the next state is terminal, ``(M, B)``.
    """

    mean: Tensor
    log_variance: Tensor
    termination: Tensor


class EnsembleNetwork(nn.Module):
    """M residual networks that map a standardised state and joint action to a Gaussian and a termination logit.

    Two soft-plus functions bound the log-variance by learnable limits. It stays finite outside the data and keeps a
    gradient at the limits (Chua et al., 2018, appendix A.1).

    Args:
        n_members: M.
        n_in: input features.
        width: features of the residual blocks.
        n_blocks: number of residual blocks.
        n_out: D.
        prior_scale: scale of the random function that each member adds to its mean; 0 for none.
    """

    def __init__(
        self, n_members: int, n_in: int, width: int, n_blocks: int, n_out: int, prior_scale: float = 0.0
    ) -> None:
        super().__init__()
        self.prior_scale = prior_scale
        self.n_in, self.width, self.n_blocks, self.n_out = n_in, width, n_blocks, n_out
        self.layers = StackedResidualNetwork(n_members, n_in, width, n_blocks, 2 * n_out + 1)
        self.priors = RandomPriors(n_members, n_in, n_out) if prior_scale else None
        self.highest = nn.Parameter(torch.full((n_members, 1, n_out), 0.5))
        self.lowest = nn.Parameter(torch.full((n_members, 1, n_out), -10.0))

    def forward(self, x: Tensor) -> Prediction:
        """Predicts for inputs ``(M, B, n_in)``."""
        mean, raw, termination = at_least_float32(self.layers(x)).split([self.n_out, self.n_out, 1], -1)
        if self.priors is not None:
            mean = mean + self.prior_scale * at_least_float32(self.priors(x))
        bounded = self.highest - F.softplus(self.highest - raw)
        bounded = self.lowest + F.softplus(bounded - self.lowest)
        return Prediction(mean, bounded, termination.squeeze(-1))

    def tensors(self) -> Iterator[Tensor]:
        """All that belongs to the members, trained or not, each ``(M, ...)``."""
        return chain(self.parameters(), self.buffers())

    def range_penalty(self) -> Tensor:
        """Mean distance between the log-variance limits, which the loss penalises; per member ``(M,)``."""
        return (self.highest - self.lowest).mean((1, 2))

    @torch.no_grad()
    def copy_members(self, other: EnsembleNetwork, which: Tensor) -> None:
        """Copies from ``other`` the members for which ``which`` ``(M,)`` (bool) is True."""
        for target, source in zip(self.tensors(), other.tensors(), strict=True):
            target.copy_(torch.where(which.view(-1, *[1] * (target.dim() - 1)), source, target))

    @torch.no_grad()
    def subset(self, members: Tensor) -> EnsembleNetwork:
        """A new, frozen network of the members with the indices ``members`` (long)."""
        subset = EnsembleNetwork(len(members), self.n_in, self.width, self.n_blocks, self.n_out, self.prior_scale)
        subset = subset.to(self.highest)  # device and precision
        for target, source in zip(subset.tensors(), self.tensors(), strict=True):
            target.copy_(source[members])
        return subset.requires_grad_(False)
