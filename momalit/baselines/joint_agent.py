"""A team as one agent that sees the whole state and takes every action."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from momalit.core.errors import UserError
from momalit.core.records import Segments, Sequence
from momalit.core.team import AgentSpec, TeamSpec
from momalit.nn.actors import TeamActor
from momalit.nn.distributions import TeamCategorical, TeamDistribution

MOST_CHOICES = 4096


def joint_team_spec(spec: TeamSpec) -> TeamSpec:
    """The same task for one agent.

    Continuous actions are put side by side. Discrete ones become a choice among all combinations: only a distribution
    over combinations can say "all left or all right", which is what one agent that does everything can do and agents
    that choose apart cannot, however much each of them sees.

    Raises:
        UserError: there are more than 4,096 combinations.
    """
    if spec.discrete:
        size = math.prod(agent.action_size for agent in spec.agents)
        if size > MOST_CHOICES:
            raise UserError(
                f"model.class_path: a centralised method chooses among all combinations of the team's choices; found"
                f" {size:,} of them, expected at most {MOST_CHOICES:,} (fewer agents, or momalit.baselines.MAIQLModule)"
            )
        low: tuple[float, ...] = ()
        high: tuple[float, ...] = ()
    else:
        size = spec.joint_action_size
        low = tuple(bound for agent in spec.agents for bound in agent.low)
        high = tuple(bound for agent in spec.agents for bound in agent.high)
    agent = AgentSpec("team", tuple(range(spec.state_size)), size, low, high)
    return replace(spec, agents=(agent,))


class JointActions(nn.Module):
    """Translates between the actions of the agents ``(..., A, U)`` and those of the one agent ``(..., 1, J)``."""

    choices: Tensor
    strides: Tensor
    slots: Tensor

    def __init__(self, spec: TeamSpec) -> None:
        super().__init__()
        self.discrete, self.shape = spec.discrete, (spec.n_agents, spec.action_size)
        sizes = [agent.action_size for agent in spec.agents]
        if spec.discrete:
            # Every combination as the choice of each agent, (J, A); the last agent's choice changes fastest.
            every = torch.cartesian_prod(*(torch.arange(size) for size in sizes)).reshape(-1, spec.n_agents)
            strides = torch.tensor([math.prod(sizes[i + 1 :]) for i in range(len(sizes))])
            self.register_buffer("choices", every, persistent=False)
            self.register_buffer("strides", strides, persistent=False)
        else:
            slots = torch.nonzero(spec.action_mask().flatten()).squeeze(1)
            self.register_buffer("slots", slots, persistent=False)

    def join(self, action: Tensor) -> Tensor:
        """``(..., A, U)`` -> ``(..., 1, J)``; a one-hot action of zeros, "none yet", stays zero."""
        if not self.discrete:
            return action.flatten(-2)[..., self.slots].unsqueeze(-2)
        number = (action.argmax(-1) * self.strides).sum(-1, keepdim=True)
        chosen = action.sum((-1, -2), keepdim=False).unsqueeze(-1) > 0
        joint = action.new_zeros(*action.shape[:-2], len(self.choices))
        return joint.scatter(-1, number, chosen.to(action.dtype)).unsqueeze(-2)

    def split(self, joint: Tensor) -> Tensor:
        """``(..., 1, J)`` -> ``(..., A, U)``, the inverse of ``join``."""
        agents, size = self.shape
        joint = joint.squeeze(-2)
        if not self.discrete:
            flat = joint.new_zeros(*joint.shape[:-1], agents * size)
            flat[..., self.slots] = joint
            return flat.unflatten(-1, self.shape)
        one_hot = torch.nn.functional.one_hot(self.choices, size).to(joint.dtype)
        return (joint @ one_hot.flatten(1)).unflatten(-1, self.shape)

    def of(self, batch: Segments) -> Segments:
        """A minibatch as the one agent knows it."""
        sequence = replace(batch.sequence, previous_action=self.join(batch.sequence.previous_action))
        return replace(batch, sequence=sequence, action=self.join(batch.action))


@dataclass(frozen=True)
class JointDistribution:
    """What the one agent does, in terms of the agents; log-probability and entropy are ``(..., 1)``."""

    joint: TeamDistribution
    actions: JointActions

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return self.actions.split(self.joint.sample(generator))

    @property
    def mode(self) -> Tensor:
        return self.actions.split(self.joint.mode)

    def log_prob(self, action: Tensor) -> Tensor:
        return self.joint.log_prob(self.actions.join(action))

    @property
    def entropy(self) -> Tensor:
        return self.joint.entropy


class JointActor(nn.Module):
    """A ``TeamActor`` of the one agent that acts for the team, with a ``TeamActor``'s interface.

    Args:
        spec: the team.
        actor: the policy of ``joint_team_spec(spec)``.
    """

    low: Tensor
    high: Tensor
    mask: Tensor
    legal_index: Tensor | None

    def __init__(self, spec: TeamSpec, actor: TeamActor) -> None:
        super().__init__()
        self.discrete, self.alone = spec.discrete, actor
        self.actions = JointActions(spec)
        self.register_buffer("mask", spec.action_mask(), persistent=False)
        self.register_buffer("low", spec.action_low(), persistent=False)
        self.register_buffer("high", spec.action_high(), persistent=False)
        self.register_buffer("legal_index", spec.legal_index(), persistent=False)

    @property
    def inputs(self) -> nn.Module:
        """What the policy reads."""
        return self.alone.inputs

    def distribution(self, hidden_state: Tensor, state: Tensor) -> JointDistribution:
        """What the team does, given the memory ``(1, ..., H)`` and the state ``(..., S)``."""
        policy = self.alone.distribution(hidden_state, state)
        if isinstance(policy, TeamCategorical) and self.legal_index is not None:
            allowed = (state[..., self.legal_index.clamp(min=0)] > 0.5) | (self.legal_index < 0)
            each = torch.arange(allowed.shape[-2], device=allowed.device)
            policy = TeamCategorical.from_scores(
                policy.logits, allowed[..., each, self.actions.choices].all(-1)[..., None, :]
            )
        return JointDistribution(policy, self.actions)

    def hidden_states(self, sequence: Sequence, h: Tensor | None = None) -> Tensor:
        """The memory after every time of a sequence, ``(1, T, B, H)``."""
        joint = replace(sequence, previous_action=self.actions.join(sequence.previous_action))
        return self.alone.hidden_states(joint, h)

    def forward(self, sequence: Sequence, h: Tensor | None = None) -> tuple[JointDistribution, Tensor]:
        """Distribution at every time of a sequence, over ``(T, B, A, U)``, and the memories."""
        hidden_state = self.hidden_states(sequence, h)
        return self.distribution(hidden_state, sequence.state), hidden_state

    def clip(self, action: Tensor) -> Tensor:
        """The action as an environment takes it: within bounds, zero in padding."""
        return action if self.discrete else action.clamp(self.low, self.high)
