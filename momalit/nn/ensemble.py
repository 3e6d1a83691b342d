"""The networks of a probabilistic ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from momalit.functional.precision import at_least_float32
from momalit.nn.stacked import StackedMLP


class Prediction(NamedTuple):
    """What every member predicts, in standardised units.

    Args:
        mean: ``(M, B, D)``, state change and, last, reward.
        log_variance: ``(M, B, D)``.
        termination: logit that the task ends in the successor, ``(M, B)``.
    """

    mean: Tensor
    log_variance: Tensor
    termination: Tensor


class EnsembleNetwork(nn.Module):
    """M networks from a standardised state and joint action to a Gaussian and a termination logit.

    The log-variance is kept within learnable limits by two soft-plus functions, so that it stays finite off the data
    without losing its gradient at a limit (Chua et al., 2018, appendix A.1).

    Args:
        n_members: M.
        n_in: input features.
        hidden_sizes: widths of the hidden layers.
        n_out: D.
    """

    def __init__(self, n_members: int, n_in: int, hidden_sizes: Sequence[int], n_out: int) -> None:
        super().__init__()
        self.n_in, self.hidden_sizes, self.n_out = n_in, list(hidden_sizes), n_out
        self.layers = StackedMLP(n_members, n_in, hidden_sizes, 2 * n_out + 1)
        self.highest = nn.Parameter(torch.full((n_members, 1, n_out), 0.5))
        self.lowest = nn.Parameter(torch.full((n_members, 1, n_out), -10.0))

    def forward(self, x: Tensor) -> Prediction:
        """Predicts for inputs ``(M, B, n_in)``."""
        mean, raw, termination = at_least_float32(self.layers(x)).split([self.n_out, self.n_out, 1], -1)
        bounded = self.highest - F.softplus(self.highest - raw)
        bounded = self.lowest + F.softplus(bounded - self.lowest)
        return Prediction(mean, bounded, termination.squeeze(-1))

    def range_penalty(self) -> Tensor:
        """Width of the limits, which the loss keeps from growing needlessly; per member ``(M,)``."""
        return (self.highest - self.lowest).mean((1, 2))

    @torch.no_grad()
    def copy_members(self, other: EnsembleNetwork, which: Tensor) -> None:
        """Takes over from ``other`` the members where ``which`` ``(M,)`` (bool) holds."""
        for mine, theirs in zip(self.parameters(), other.parameters(), strict=True):
            mine.copy_(torch.where(which.view(-1, *[1] * (mine.dim() - 1)), theirs, mine))

    @torch.no_grad()
    def subset(self, members: Tensor) -> EnsembleNetwork:
        """A new, frozen network of the members numbered ``members`` (long)."""
        chosen = EnsembleNetwork(len(members), self.n_in, self.hidden_sizes, self.n_out).to(self.highest.device)
        for mine, theirs in zip(chosen.parameters(), self.parameters(), strict=True):
            mine.copy_(theirs[members])
        return chosen.requires_grad_(False)
