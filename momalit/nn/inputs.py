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
    """

    index: Tensor
    observed: Tensor
    acting: Tensor
    action_center: Tensor
    action_scale: Tensor

    def __init__(self, spec: TeamSpec) -> None:
        super().__init__()
        self.size = spec.observation_size + spec.action_size
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
            ``(A, ..., O + U)``, agents first as the stacked networks want them.
        """
        observation = self.standardizer(state)[..., self.index] * self.observed
        # A previous action of zero means "none yet"; real ones are scaled by their range.
        action = (previous_action - self.action_center) / self.action_scale * self.acting
        return torch.cat([observation, action.to(observation.dtype)], -1).movedim(-2, 0)
