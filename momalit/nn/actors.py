"""The team's policies: one recurrent network per agent, evaluated as one batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from momalit.core.checks import require_numbers
from momalit.core.errors import UserError
from momalit.core.records import Sequence
from momalit.core.team import TeamSpec, presence
from momalit.functional.precision import at_least_float32
from momalit.nn.agent_inputs import AgentInputs
from momalit.nn.distributions import TeamCategorical, TeamDistribution, TeamGaussian, TeamMixed
from momalit.nn.recurrent_trunk import RecurrentTrunk
from momalit.nn.stacked import StackedLinear


def clip_actions(action: Tensor, low: Tensor, high: Tensor, may_leave: bool) -> Tensor:
    """Clips continuous actions ``(..., A, U)``. Agents that have left take the action 0, in bounds or not."""
    clipped = action.clamp(low, high)
    return torch.where(action == 0, action, clipped) if may_leave else clipped


class TeamActor(nn.Module):
    """Decentralised GRU policies of all agents: agent i reads only the history of ``[o_i ; previous a_i]``.

    Continuous actions are Gaussian. Tanh squashes the mean into the action bounds; a hard clip would give a mean
    outside the bounds no gradient. The standard deviation is learnable per agent and component, with a lower and an
    upper bound. Discrete actions are categorical over the legal choices. Agents of one team may differ in kind.

    Args:
        spec: the team.
        width: units of the linear layers.
        gru_size: units of the GRU; 0 for no GRU, so that the policy reads the current observation only.
        share_parameters: one network for all agents.
        initial_std: initial standard deviation, as a fraction of half the action range.
        min_std: lower bound of the standard deviation, in the same units.
        max_std: upper bound of the standard deviation, in the same units.

    Raises:
        UserError: unless 0 < min_std < max_std and, for continuous actions, min_std <= initial_std <= max_std.
    """

    low: Tensor
    high: Tensor
    mask: Tensor
    center: Tensor
    half_range: Tensor
    log_scale: Tensor
    legal_index: Tensor | None
    present_index: Tensor | None
    choosing: Tensor | None

    def __init__(
        self,
        spec: TeamSpec,
        width: int = 256,
        gru_size: int = 128,
        share_parameters: bool = False,
        initial_std: float = 0.5,
        min_std: float = 0.05,
        max_std: float = 1.0,
    ) -> None:
        super().__init__()
        self.spec, self.sizes = spec, {"width": width, "gru_size": gru_size, "share_parameters": share_parameters}
        require_numbers("model.", {"min_std": min_std}, above=0, below=max_std)
        self.discrete = spec.discrete
        self.inputs = AgentInputs(spec, previous=gru_size > 0)
        self.trunk = RecurrentTrunk(spec, width, gru_size, share_parameters)
        self.head = StackedLinear(spec.n_agents, self.trunk.size, spec.action_size, gain=0.01)
        self.register_buffer("mask", spec.action_mask(), persistent=False)
        self.register_buffer("low", spec.action_low(), persistent=False)
        self.register_buffer("high", spec.action_high(), persistent=False)
        self.register_buffer("legal_index", spec.legal_index(), persistent=False)
        self.register_buffer("present_index", spec.present_index(), persistent=False)
        choosing = spec.choosing().unsqueeze(1).float() if spec.mixed else None
        self.register_buffer("choosing", choosing, persistent=False)
        if not spec.discrete:
            self._log_range = (math.log(min_std), math.log(max_std))
            half_range = (self.high - self.low) / 2
            self.register_buffer("center", (self.high + self.low) / 2, persistent=False)
            self.register_buffer("half_range", half_range, persistent=False)
            scale = torch.where(half_range > 0, half_range, 1.0)
            self.register_buffer("log_scale", scale.log() + self._log_range[0], persistent=False)
            self.raw_std = nn.Parameter(torch.zeros(spec.n_agents, spec.action_size))
        self.set_std(initial_std, "initial_std")

    @property
    def log_std(self) -> Tensor:
        """Log standard deviation in units of the action, ``(A, U)``."""
        log_min, log_max = self._log_range
        return torch.sigmoid(self.raw_std) * (log_max - log_min) + self.log_scale

    @torch.no_grad()
    def set_std(self, std: float, name: str = "std") -> None:
        """Sets the standard deviation of all agents and components; does nothing for discrete teams.

        Args:
            std: the standard deviation, as a fraction of half the action range.
            name: name of the setting in the error message.

        Raises:
            UserError: ``std`` is outside its bounds.
        """
        if self.discrete:
            return
        require_numbers("model.", {name: std}, above=0)
        log_min, log_max = self._log_range
        if not log_min <= math.log(std) <= log_max:
            lower, upper = (round(math.exp(bound), 6) for bound in self._log_range)
            raise UserError(f"model.{name}: found {std}, expected a number from {lower} to {upper}")
        fraction = min(max((math.log(std) - log_min) / (log_max - log_min), 0.01), 0.99)
        self.raw_std.fill_(math.log(fraction / (1 - fraction)))

    @staticmethod
    def sizes_from_weights(spec: TeamSpec, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """Infers the ``sizes`` of a team's networks from the shapes in their ``state_dict``."""
        _, n_in, width = weights["trunk.linear.weight"].shape
        gru = weights.get("trunk.gru.hidden.weight")
        unshared = spec.observation_size + (0 if gru is None else spec.action_size)
        return {"width": width, "gru_size": 0 if gru is None else gru.shape[1], "share_parameters": n_in > unshared}

    @torch.no_grad()
    def copy_policies(self, other: TeamActor) -> None:
        """Copies the policies of ``other``, which has the same ``sizes``; clamps standard deviations to own bounds."""
        self.load_state_dict(other.state_dict())
        if not self.discrete and self._log_range != other._log_range:
            log_min, log_max = self._log_range
            fraction = ((other.log_std - self.log_scale) / (log_max - log_min)).clamp(0.01, 0.99)
            self.raw_std.copy_(torch.logit(fraction))

    def distribution(self, hidden_state: Tensor, state: Tensor) -> TeamDistribution:
        """The joint action distribution, given the agents' hidden states.

        Args:
            hidden_state: ``(A, ..., H)``.
            state: ``(..., S)``, used only for the masks of legal actions and for who is there.

        Returns:
            a distribution over actions ``(..., A, U)``.
        """
        scores = at_least_float32(self.head(hidden_state).movedim(0, -2))
        present = self.present(state)
        if self.choosing is not None:
            real = 1 - self.choosing if present is None else (1 - self.choosing) * present
            chooses = self.choosing if present is None else self.choosing * present
            return TeamMixed(self._real(scores, real), self._choice(scores, state, chooses), self.choosing)
        return self._choice(scores, state, present) if self.discrete else self._real(scores, present)

    def _real(self, scores: Tensor, present: Tensor | None) -> TeamGaussian:
        mean = torch.addcmul(self.center, self.half_range, torch.tanh(scores))
        if present is None:
            return TeamGaussian(mean, self.log_std, self.mask)
        return TeamGaussian(mean * present, self.log_std, self.mask * present)

    def _choice(self, scores: Tensor, state: Tensor, present: Tensor | None) -> TeamCategorical:
        legal = self.mask.bool()
        if self.legal_index is not None:
            allowed = (state[..., self.legal_index.clamp(min=0)] > 0.5) | (self.legal_index < 0)
            # The world model may predict a mask without any legal action, which is wrong: then all actions are legal.
            legal = legal & (allowed | ~(allowed & legal).any(-1, keepdim=True))
        return TeamCategorical.from_scores(scores, legal, present)

    def present(self, state: Tensor) -> Tensor | None:
        """1 for agents that are there, 0 for others, ``(..., A, 1)``; None if nobody ever leaves.

        Args:
            state: ``(..., S)``.
        """
        return presence(state, self.present_index)

    def hidden_states(self, sequence: Sequence, h: Tensor | None = None) -> Tensor:
        """The agents' hidden states after every step of a sequence, ``(A, T, B, H)``."""
        return self.trunk(self.inputs(sequence.state, sequence.previous_action), sequence.keep, h)

    def forward(self, sequence: Sequence, h: Tensor | None = None) -> tuple[TeamDistribution, Tensor]:
        """Action distributions at every step of a sequence, ``(T, B, A, U)``, and the hidden states."""
        hidden_state = self.hidden_states(sequence, h)
        return self.distribution(hidden_state, sequence.state), hidden_state

    def clip(self, action: Tensor) -> Tensor:
        """Clips continuous actions to their bounds, with zeros in padding; returns discrete actions unchanged."""
        return action if self.discrete else clip_actions(action, self.low, self.high, self.present_index is not None)
