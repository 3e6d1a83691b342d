"""The team's policies: one recurrent network per agent, run as one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from momalit.core.errors import UserError
from momalit.core.records import Sequence
from momalit.core.team import TeamSpec
from momalit.functional.precision import at_least_float32
from momalit.nn.agent_inputs import AgentInputs
from momalit.nn.distributions import TeamCategorical, TeamDistribution, TeamGaussian
from momalit.nn.recurrent_trunk import RecurrentTrunk
from momalit.nn.stacked import StackedLinear


class TeamActor(nn.Module):
    """GRU policies of all agents, decentralised: agent i reads the history of ``[o_i ; previous a_i]`` only.

    Continuous actions are Gaussian: a mean squashed into the bounds by tanh (a hard clip would leave a mean that has
    left them without a gradient) and a learnable deviation per agent and component, bounded on either side. Discrete
    actions are categorical over the legal choices.

    Args:
        spec: the team.
        width: units of the linear layers.
        gru_size: units of the GRU; 0 for none, which decides by the present observation alone.
        share_parameters: one network for all agents.
        initial_std: deviation at the start, as a share of half the action range.
        min_std: its lower bound.
        max_std: its upper bound.

    Raises:
        UserError: the three deviations are not in this order, or not positive.
    """

    low: Tensor
    high: Tensor
    mask: Tensor
    center: Tensor
    half_range: Tensor
    log_scale: Tensor
    legal_index: Tensor | None

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
        if not 0 < min_std < max_std:
            raise UserError(f"model.min_std: found {min_std}, expected a number above 0 and below {max_std}")
        self.discrete = spec.discrete
        self.inputs = AgentInputs(spec, previous=gru_size > 0)
        self.trunk = RecurrentTrunk(spec, width, gru_size, share_parameters)
        self.head = StackedLinear(spec.n_agents, self.trunk.size, spec.action_size, gain=0.01)
        self.register_buffer("mask", spec.action_mask(), persistent=False)
        self.register_buffer("low", spec.action_low(), persistent=False)
        self.register_buffer("high", spec.action_high(), persistent=False)
        self.register_buffer("legal_index", spec.legal_index(), persistent=False)
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
        """Log-deviation in units of the action, ``(A, U)``."""
        a, b = self._log_range
        return torch.sigmoid(self.raw_std) * (b - a) + self.log_scale

    @torch.no_grad()
    def set_std(self, std: float, name: str = "std") -> None:
        """Sets all deviations; discrete teams have none.

        Args:
            std: as a share of half the action range.
            name: of the setting, for the message.

        Raises:
            UserError: it is outside its bounds.
        """
        if self.discrete:
            return
        a, b = self._log_range
        if not a <= math.log(max(std, 1e-9)) <= b:
            least, most = (round(math.exp(bound), 6) for bound in self._log_range)
            raise UserError(f"model.{name}: found {std}, expected a number from {least} to {most}")
        share = min(max((math.log(std) - a) / (b - a), 0.01), 0.99)
        self.raw_std.fill_(math.log(share / (1 - share)))

    @staticmethod
    def sizes_of(spec: TeamSpec, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """The ``sizes`` of a team's networks, read off their ``state_dict``."""
        _, n_in, width = weights["trunk.linear.weight"].shape
        gru = weights.get("trunk.gru.hidden.weight")
        own = spec.observation_size + (0 if gru is None else spec.action_size)
        return {"width": width, "gru_size": 0 if gru is None else gru.shape[1], "share_parameters": n_in > own}

    @torch.no_grad()
    def copy_policies(self, other: TeamActor) -> None:
        """Takes over the policies of ``other``, of the same ``sizes``; deviations stay within the bounds here."""
        self.load_state_dict(other.state_dict())
        if not self.discrete and self._log_range != other._log_range:
            a, b = self._log_range
            self.raw_std.copy_(torch.logit(((other.log_std - self.log_scale) / (b - a)).clamp(0.01, 0.99)))

    def distribution(self, hidden_state: Tensor, state: Tensor) -> TeamDistribution:
        """What the agents do, given their memories.

        Args:
            hidden_state: ``(A, ..., H)``.
            state: ``(..., S)``, read for the action masks only.

        Returns:
            a distribution over ``(..., A, U)``.
        """
        scores = at_least_float32(self.head(hidden_state).movedim(0, -2))
        if not self.discrete:
            mean = torch.addcmul(self.center, self.half_range, torch.tanh(scores))
            return TeamGaussian(mean, self.log_std, self.mask)
        legal = self.mask.bool()
        if self.legal_index is not None:
            allowed = (state[..., self.legal_index.clamp(min=0)] > 0.5) | (self.legal_index < 0)
            # A predicted mask that forbids everything cannot be right: then everything is allowed.
            legal = legal & (allowed | ~(allowed & legal).any(-1, keepdim=True))
        return TeamCategorical.from_scores(scores, legal)

    def hidden_states(self, sequence: Sequence, h: Tensor | None = None) -> Tensor:
        """The agents' memories after every time of a sequence, ``(A, T, B, H)``."""
        return self.trunk(self.inputs(sequence.state, sequence.previous_action), sequence.keep, h)

    def forward(self, sequence: Sequence, h: Tensor | None = None) -> tuple[TeamDistribution, Tensor]:
        """Distribution at every time of a sequence, ``(T, B, A, U)``, and the memories."""
        hidden_state = self.hidden_states(sequence, h)
        return self.distribution(hidden_state, sequence.state), hidden_state

    def clip(self, action: Tensor) -> Tensor:
        """The action as an environment takes it: within bounds, zero in padding."""
        return action if self.discrete else action.clamp(self.low, self.high)
