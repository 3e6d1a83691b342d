"""The team's value: a mix of recurrent per-agent values."""

from __future__ import annotations

from torch import Tensor, nn

from momalit.core.checks import require_choice
from momalit.core.records import Sequence
from momalit.core.team import TeamSpec
from momalit.functional.precision import at_least_float32
from momalit.nn.agent_inputs import AgentInputs
from momalit.nn.mixers import NO_MIXER, make_mixer
from momalit.nn.recurrent_trunk import RecurrentTrunk
from momalit.nn.stacked import StackedLinear, StackedMLP
from momalit.nn.standardizer import RunningScale

OBSERVES = ("observations", "state")


class TeamCritic(nn.Module):
    """``V_tot = mix_s(V_1(o_1, h_1), ..., V_n(o_n, h_n))``, or ``V(s)`` from an MLP without a mixer.

    Since the critic is not deployed, its networks may read the state s in place of o_i. Under partial observability
    their values are then more accurate.

    The network predicts normalised values. ``scale`` holds the running statistics of the value targets and converts
    values back to units of reward.

    Args:
        spec: the team.
        width: units of the linear layer.
        gru_size: units of the GRU.
        mixer: ``qmix``, ``vdn``, ``linear`` or ``none``.
        share_parameters: one value network for all agents.
        observes: ``observations`` for value networks that read what their agents observe, ``state`` for ones that read
            the whole state. Policies do not depend on it when they are deployed.

    Raises:
        UserError: ``mixer`` or ``observes`` is unknown.
    """

    def __init__(
        self,
        spec: TeamSpec,
        width: int = 256,
        gru_size: int = 128,
        mixer: str = "qmix",
        share_parameters: bool = False,
        observes: str = "observations",
    ) -> None:
        super().__init__()
        require_choice("model.critic_observes", observes, OBSERVES)
        if observes == "state":
            spec = spec.fully_observed()
        self.scale = RunningScale()
        self.inputs = AgentInputs(spec, previous=gru_size > 0)
        self.mixer: nn.Module | None = None
        self.trunk: RecurrentTrunk | None = None
        if mixer == NO_MIXER:
            self.plain = StackedMLP(1, spec.state_size, (width, width), 1)
        else:
            self.mixer = make_mixer(mixer, spec.n_agents, spec.state_size)
            self.trunk = RecurrentTrunk(spec, width, gru_size, share_parameters)
            self.head = StackedLinear(spec.n_agents, self.trunk.size, 1, gain=1.0)

    def hidden_states(self, sequence: Sequence, h: Tensor | None = None) -> Tensor | None:
        """The value networks' hidden states ``(A, T, B, H)``; None without a mixer (the MLP has none)."""
        if self.trunk is None:
            return None
        return self.trunk(self.inputs(sequence.state, sequence.previous_action), sequence.keep, h)

    def forward(self, sequence: Sequence, h: Tensor | None = None) -> Tensor:
        """Normalised value at every step of a sequence, ``(T, B)``."""
        return self.value(sequence.state, self.hidden_states(sequence, h))

    def value(self, state: Tensor, hidden_state: Tensor | None) -> Tensor:
        """Normalised value ``(...)`` of states ``(..., S)``, given hidden states ``(A, ..., H)``."""
        state = self.inputs.standardizer(state)
        if hidden_state is None or self.mixer is None:
            return at_least_float32(self.plain(state.unsqueeze(0)).squeeze(0).squeeze(-1))
        values = self.head(hidden_state).squeeze(-1).movedim(0, -1)
        return at_least_float32(self.mixer(values, state))
