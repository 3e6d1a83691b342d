"""From the state to what each agent's network reads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from momalit.nn.standardizer import Standardizer
from momalit.team import TeamSpec


class AgentInputs(nn.Module):
    """The input ``[o_i ; previous a_i]`` of every agent, padded, in standardised units.

    The index map and the masks come from the specification. Padding is zero.

    Args:
        spec: the team.
        previous: False leaves out the previous action, for networks without a memory.
    """

    index: Tensor
    observed: Tensor
    acting: Tensor
    action_center: Tensor
    action_scale: Tensor

    def __init__(self, spec: TeamSpec, previous: bool = True) -> None:
        super().__init__()
        self.previous = previous
        self.size = spec.observation_size + (spec.action_size if previous else 0)
        self.standardizer = Standardizer(spec.state_size)
        low, high = spec.action_low(), spec.action_high()
        constants = {
            "index": spec.observation_index(),
            "observed": spec.observation_mask(),
            "acting": spec.action_mask(),
            "action_center": torch.zeros_like(low) if spec.discrete else (low + high) / 2,
            "action_scale": torch.where(high > low, 1.0 if spec.discrete else (high - low) / 2, 1.0),
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, state: Tensor, previous_action: Tensor) -> Tensor:
        """Gathers and standardises.

        Args:
            state: ``(..., S)``.
            previous_action: ``(..., A, U)``.

        Returns:
            ``(A, ..., O + U)``, or ``(A, ..., O)``, agents first as the stacked networks want them.
        """
        observation = self.standardizer(state)[..., self.index] * self.observed
        if not self.previous:
            return observation.movedim(-2, 0)
        # A previous action of zero means "none yet"; real ones are scaled by their range.
        return torch.cat([observation, self.scaled(previous_action).to(observation.dtype)], -1).movedim(-2, 0)

    def scaled(self, action: Tensor) -> Tensor:
        """Actions ``(..., A, U)`` with bounds moved to -1 and 1, choices as they are; zero in padding."""
        return (action - self.action_center) / self.action_scale * self.acting
