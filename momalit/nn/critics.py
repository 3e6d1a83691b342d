"""The team's value: recurrent values per agent, mixed."""

from __future__ import annotations

from torch import Tensor, nn

from momalit.core.records import Sequence
from momalit.core.team import TeamSpec
from momalit.functional.precision import widened
from momalit.nn.agent_inputs import AgentInputs
from momalit.nn.mixers import NO_MIXER, make_mixer
from momalit.nn.recurrent_trunk import RecurrentTrunk
from momalit.nn.stacked import StackedLinear, StackedMLP
from momalit.nn.standardizer import RunningScale


class TeamCritic(nn.Module):
    """``V_tot = mix_s(V_1(o_1, h_1), ..., V_n(o_n, h_n))``, or a plain ``V(s)`` without a mixer.

    The network works in normalised units; ``scale`` holds the running statistics of its targets and takes values back
    to units of reward.

    Args:
        spec: the team.
        width: units of the linear layer.
        memory: units of the GRU.
        mixer: ``qmix``, ``vdn``, ``linear`` or ``none``.
        shared: one value network for all agents.
    """

    def __init__(
        self, spec: TeamSpec, width: int = 256, memory: int = 128, mixer: str = "qmix", shared: bool = False
    ) -> None:
        super().__init__()
        self.scale = RunningScale()
        self.inputs = AgentInputs(spec, previous=memory > 0)
        self.mixer: nn.Module | None = None
        self.trunk: RecurrentTrunk | None = None
        if mixer == NO_MIXER:
            self.plain = StackedMLP(1, spec.state_size, (width, width), 1)
        else:
            self.mixer = make_mixer(mixer, spec.n_agents, spec.state_size)
            self.trunk = RecurrentTrunk(spec, width, memory, shared)
            self.head = StackedLinear(spec.n_agents, self.trunk.size, 1, gain=1.0)

    def remember(self, sequence: Sequence, h: Tensor | None = None) -> Tensor | None:
        """The value networks' memories ``(A, T, B, H)``; None without a mixer, which needs none."""
        if self.trunk is None:
            return None
        return self.trunk(self.inputs(sequence.state, sequence.previous_action), sequence.keep, h)

    def forward(self, sequence: Sequence, h: Tensor | None = None) -> Tensor:
        """Normalised value at every time of a sequence, ``(T, B)``."""
        return self.value(sequence.state, self.remember(sequence, h))

    def value(self, state: Tensor, memory: Tensor | None) -> Tensor:
        """Normalised value ``(...)`` of states ``(..., S)``, given the memories ``(A, ..., H)`` that were built."""
        state = self.inputs.standardizer(state)
        if memory is None or self.mixer is None:
            return widened(self.plain(state.unsqueeze(0)).squeeze(0).squeeze(-1))
        values = self.head(memory).squeeze(-1).movedim(0, -1)
        return widened(self.mixer(values, state))
