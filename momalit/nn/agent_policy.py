"""One agent's policy as a network of its own, for one time step: what an exported agent computes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from momalit.nn.actors import TeamActor


class AgentPolicy(nn.Module):
    """The deterministic policy of one agent, without the rest of the team.

    It computes what ``TeamActor`` computes for this agent, from the agent's own observation in the units of the task.

    Args:
        actor: the team's policies.
        agent: index of the agent.

    Shapes:
        observation ``(B, O)``, previous action ``(B, U)`` and hidden state ``(B, H)`` (both zero at the first step of
        an episode), legal ``(B, U)`` (1 = legal; only for agents with a mask) -> action ``(B, U)``, hidden state
        ``(B, H)``. Discrete actions are one-hot. Without a GRU, H is 0 and the previous action is ignored.
    """

    first: nn.Linear
    gates: nn.Linear
    recurrent: nn.Linear
    second: nn.Linear
    head: nn.Linear
    mean: Tensor
    std: Tensor
    center: Tensor
    scale: Tensor
    middle: Tensor
    half_range: Tensor

    def __init__(self, actor: TeamActor, agent: int) -> None:
        super().__init__()
        spec = actor.spec.agents[agent]
        columns, size = list(spec.observes), spec.action_size
        network = 0 if actor.trunk.share_parameters else agent
        self.name, self.observation_size, self.action_size = spec.name, len(columns), size
        self.hidden_size = 0 if actor.trunk.gru is None else actor.trunk.gru.size
        self.discrete, self.has_mask = spec.discrete, bool(spec.legal)
        inputs = actor.inputs
        self._constant("mean", inputs.standardizer.mean[columns])
        self._constant("std", inputs.standardizer.std[columns])
        self._constant("center", inputs.action_center[agent, :size])
        self._constant("scale", inputs.action_scale[agent, :size])
        padded, padded_action = actor.spec.observation_size, actor.spec.action_size
        rows = list(range(len(columns)))
        if inputs.previous:
            rows += range(padded, padded + size)
        first, bias = actor.trunk.linear.weight[network], actor.trunk.linear.bias[network, 0]
        if actor.trunk.share_parameters:  # the agent's one-hot input is constant
            bias = bias + first[padded + (padded_action if inputs.previous else 0) + agent]
        self._layer("first", first[rows], bias)
        if actor.trunk.gru is not None:
            gru = actor.trunk.gru
            self._layer("gates", gru.input.weight[network], gru.input.bias[network, 0])
            self._layer("recurrent", gru.hidden.weight[network], gru.hidden.bias[network, 0])
        elif actor.trunk.second is not None:
            self._layer("second", actor.trunk.second.weight[network], actor.trunk.second.bias[network, 0])
        self._layer("head", actor.head.weight[agent][:, :size], actor.head.bias[agent, 0, :size])
        if not self.discrete:
            self._constant("middle", actor.center[agent, :size])
            self._constant("half_range", actor.half_range[agent, :size])
        self.eval()

    def _constant(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value.detach().clone().float())

    def _layer(self, name: str, weight: Tensor, bias: Tensor) -> None:
        """Adds a linear layer with weights ``(n_in, n_out)``."""
        layer = nn.Linear(*weight.shape)
        layer.weight.data, layer.bias.data = weight.detach().t().contiguous().float(), bias.detach().clone().float()
        setattr(self, name, layer.requires_grad_(False))

    def forward(
        self, observation: Tensor, previous_action: Tensor, hidden: Tensor, legal: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        x = (observation - self.mean) / self.std
        if self.hidden_size:
            x = torch.cat([x, (previous_action - self.center) / self.scale], -1)
        x = torch.relu(self.first(x))
        if self.hidden_size:
            hidden = self._remember(self.gates(x), hidden)
            scores = self.head(hidden)
        else:
            scores = self.head(torch.relu(self.second(x)))
        if not self.discrete:
            return self.middle + self.half_range * torch.tanh(scores), hidden
        if legal is not None:
            possible = (legal > 0.5) | ~(legal > 0.5).any(-1, keepdim=True)
            scores = torch.where(possible, scores, torch.full_like(scores, -1e30))
        choices = torch.arange(self.action_size, device=scores.device)
        return (scores.argmax(-1, keepdim=True) == choices).to(scores.dtype), hidden

    def _remember(self, gates: Tensor, hidden: Tensor) -> Tensor:
        """The GRU's next hidden state (Cho et al., 2014)."""
        own, recurrent = gates.chunk(3, -1), self.recurrent(hidden).chunk(3, -1)
        r, z = torch.sigmoid(own[0] + recurrent[0]), torch.sigmoid(own[1] + recurrent[1])
        candidate = torch.tanh(own[2] + r * recurrent[2])
        return candidate + z * (hidden - candidate)
