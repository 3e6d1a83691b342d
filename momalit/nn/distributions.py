"""Joint action distributions of a team, with padding and masks and without host synchronisation.

``torch.distributions`` does not fit: it validates arguments on the host and samples without a generator. Actions have
shape ``(..., A, U)``; log-probabilities and entropies are per agent, ``(..., A)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_LOG_SQRT_TWO_PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class TeamGaussian:
    """Independent Gaussian distributions of all action components.

    Args:
        mean: ``(..., A, U)``.
        log_std: broadcastable to ``mean``.
        mask: 1 for action components, 0 for padding and for agents that have left, ``(A, U)`` or ``(..., A, U)``.
    """

    mean: Tensor
    log_std: Tensor
    mask: Tensor

    def sample(self, generator: torch.Generator | None = None, count: int | None = None) -> Tensor:
        """Samples one action, or ``count`` actions along a new first axis."""
        shape = self.mean.shape if count is None else (count, *self.mean.shape)
        noise = torch.randn(shape, generator=generator, device=self.mean.device, dtype=self.mean.dtype)
        return torch.addcmul(self.mean, noise, self.log_std.exp() * self.mask)

    @property
    def mode(self) -> Tensor:
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        scaled = (action - self.mean) * torch.exp(-self.log_std)
        return ((-0.5 * scaled * scaled - self.log_std - _LOG_SQRT_TWO_PI) * self.mask).sum(-1)

    @property
    def entropy(self) -> Tensor:
        per_component = (self.log_std + 0.5 + _LOG_SQRT_TWO_PI) * self.mask
        return per_component.expand_as(self.mean).sum(-1)


@dataclass(frozen=True)
class TeamCategorical:
    """Categorical distributions of all agents; actions are one-hot vectors.

    Args:
        logits: normalised log-probabilities ``(..., A, U)``, very low for illegal choices and padding.
        present: 1 for agents that are there, 0 for those that have left and choose nothing, ``(..., A, 1)``; None for
            all there.
    """

    logits: Tensor
    present: Tensor | None = None

    @classmethod
    def from_scores(cls, scores: Tensor, legal: Tensor, present: Tensor | None = None) -> TeamCategorical:
        """Normalises raw ``scores`` over the choices for which ``legal`` (bool, broadcastable) is True."""
        lowest = torch.finfo(scores.dtype).min / 4
        return cls(torch.log_softmax(torch.where(legal, scores, lowest), -1), present)

    def _one_hot(self, choice: Tensor) -> Tensor:
        chosen = torch.zeros_like(self.logits).scatter_(-1, choice, 1.0)
        return chosen if self.present is None else chosen * self.present

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        # Gumbel-max trick: the arg-max of log-probabilities plus Gumbel noise is a sample.
        gumbel = -torch.empty_like(self.logits).exponential_(generator=generator).log()
        return self._one_hot((self.logits + gumbel).argmax(-1, keepdim=True))

    @property
    def mode(self) -> Tensor:
        return self._one_hot(self.logits.argmax(-1, keepdim=True))

    def log_prob(self, action: Tensor) -> Tensor:
        return (action * self.logits).sum(-1)

    @property
    def entropy(self) -> Tensor:
        entropy = -(self.logits.exp() * self.logits).sum(-1)
        return entropy if self.present is None else entropy * self.present.squeeze(-1)


@dataclass(frozen=True)
class TeamMixed:
    """Teams in which some agents choose and others act by real numbers.

    Args:
        real: those of the others; its means and its mask are 0 for agents that choose.
        choice: those of the agents that choose; nobody else is present in it.
        choosing: 1 for agents that choose, 0 for others, ``(A, 1)``.
    """

    real: TeamGaussian
    choice: TeamCategorical
    choosing: Tensor

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return self.real.sample(generator) + self.choice.sample(generator)

    @property
    def mode(self) -> Tensor:
        return self.real.mode + self.choice.mode

    def log_prob(self, action: Tensor) -> Tensor:
        return self.real.log_prob(action) + self.choice.log_prob(action * self.choosing)

    @property
    def entropy(self) -> Tensor:
        return self.real.entropy + self.choice.entropy


TeamDistribution = TeamGaussian | TeamCategorical | TeamMixed
