"""A team as one joint agent that observes the whole state and takes all actions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from momalit.core.errors import UserError
from momalit.core.records import Segments, Sequence
from momalit.core.team import AgentSpec, TeamSpec, presence
from momalit.nn.actors import TeamActor, clip_actions
from momalit.nn.distributions import TeamCategorical, TeamDistribution

MAX_JOINT_ACTIONS = 4096


def joint_team_spec(spec: TeamSpec) -> TeamSpec:
    """Returns the specification of the same task with one joint agent.

    Continuous actions are concatenated. Discrete ones become one discrete action for each combination. A distribution
    over combinations can represent "all left or all right". Independent distributions per agent cannot, no matter how
    much each agent observes.

    Raises:
        UserError: there are more than 4,096 combinations.
    """
    if spec.discrete:
        size = math.prod(agent.action_size for agent in spec.agents)
        if size > MAX_JOINT_ACTIONS:
            raise UserError(
                f"model.class_path: found {size:,} combinations of the agents' discrete actions, expected at most"
                f" {MAX_JOINT_ACTIONS:,} for a centralised method (use fewer agents or momalit.baselines.MAIQLModule)"
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
    """Converts between the agents' actions ``(..., A, U)`` and the joint agent's action ``(..., 1, J)``."""

    choices: Tensor
    strides: Tensor
    slots: Tensor

    def __init__(self, spec: TeamSpec) -> None:
        super().__init__()
        self.discrete, self.shape = spec.discrete, (spec.n_agents, spec.action_size)
        sizes = [agent.action_size for agent in spec.agents]
        if spec.discrete:
            # Each agent's action in every combination, (J, A). The last agent's action changes fastest.
            choices = torch.cartesian_prod(*(torch.arange(size) for size in sizes)).reshape(-1, spec.n_agents)
            strides = torch.tensor([math.prod(sizes[i + 1 :]) for i in range(len(sizes))])
            self.register_buffer("choices", choices, persistent=False)
            self.register_buffer("strides", strides, persistent=False)
        else:
            slots = torch.nonzero(spec.action_mask().flatten()).squeeze(1)
            self.register_buffer("slots", slots, persistent=False)

    def join(self, action: Tensor) -> Tensor:
        """Converts ``(..., A, U)`` to ``(..., 1, J)``.

        An action of zeros (no previous action) remains zero if actions are discrete, too.
        """
        if not self.discrete:
            return action.flatten(-2)[..., self.slots].unsqueeze(-2)
        index = (action.argmax(-1) * self.strides).sum(-1, keepdim=True)
        nonzero = action.sum((-1, -2), keepdim=False).unsqueeze(-1) > 0
        joint = action.new_zeros(*action.shape[:-2], len(self.choices))
        return joint.scatter(-1, index, nonzero.to(action.dtype)).unsqueeze(-2)

    def split(self, joint: Tensor) -> Tensor:
        """Converts ``(..., 1, J)`` to ``(..., A, U)``. It is the inverse of ``join``."""
        agents, size = self.shape
        joint = joint.squeeze(-2)
        if not self.discrete:
            flat = joint.new_zeros(*joint.shape[:-1], agents * size)
            flat[..., self.slots] = joint
            return flat.unflatten(-1, self.shape)
        one_hot = torch.nn.functional.one_hot(self.choices, size).to(joint.dtype)
        return (joint @ one_hot.flatten(1)).unflatten(-1, self.shape)

    def join_segments(self, batch: Segments) -> Segments:
        """Returns a minibatch with the joint agent's actions."""
        sequence = replace(batch.sequence, previous_action=self.join(batch.sequence.previous_action))
        return replace(batch, sequence=sequence, action=self.join(batch.action))


@dataclass(frozen=True)
class JointDistribution:
    """The joint agent's policy over the agents' actions. Log-probability and entropy are ``(..., 1)``.

    Args:
        joint: the joint agent's policy.
        actions: converts its actions.
        present: 1 for agents that are there, 0 for others, whose actions are 0, ``(..., A, 1)``; None for all there.
    """

    joint: TeamDistribution
    actions: JointActions
    present: Tensor | None = None

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return self._split(self.joint.sample(generator))

    @property
    def mode(self) -> Tensor:
        return self._split(self.joint.mode)

    def _split(self, joint: Tensor) -> Tensor:
        action = self.actions.split(joint)
        return action if self.present is None else action * self.present

    def log_prob(self, action: Tensor) -> Tensor:
        return self.joint.log_prob(self.actions.join(action))

    @property
    def entropy(self) -> Tensor:
        return self.joint.entropy


class JointActor(nn.Module):
    """Wraps the policy of the joint agent, with the interface of the team's ``TeamActor``.

    Args:
        spec: the team.
        actor: the joint agent's policy, for ``joint_team_spec(spec)``.
    """

    low: Tensor
    high: Tensor
    mask: Tensor
    legal_index: Tensor | None
    present_index: Tensor | None

    def __init__(self, spec: TeamSpec, actor: TeamActor) -> None:
        super().__init__()
        self.discrete, self.alone = spec.discrete, actor
        self.actions = JointActions(spec)
        self.register_buffer("mask", spec.action_mask(), persistent=False)
        self.register_buffer("low", spec.action_low(), persistent=False)
        self.register_buffer("high", spec.action_high(), persistent=False)
        self.register_buffer("legal_index", spec.legal_index(), persistent=False)
        self.register_buffer("present_index", spec.present_index(), persistent=False)

    @property
    def inputs(self) -> nn.Module:
        """The module that computes the policy's inputs."""
        return self.alone.inputs

    def distribution(self, hidden_state: Tensor, state: Tensor) -> JointDistribution:
        """Returns the joint policy, given the hidden state ``(1, ..., H)`` and the state ``(..., S)``."""
        policy = self.alone.distribution(hidden_state, state)
        if isinstance(policy, TeamCategorical) and self.legal_index is not None:
            valid = (state[..., self.legal_index.clamp(min=0)] > 0.5) | (self.legal_index < 0)
            valid = valid | ~(valid & self.mask.bool()).any(-1, keepdim=True)  # as for a team, all if there is none
            agents = torch.arange(valid.shape[-2], device=valid.device)
            policy = TeamCategorical.from_scores(
                policy.logits, valid[..., agents, self.actions.choices].all(-1)[..., None, :]
            )
        return JointDistribution(policy, self.actions, presence(state, self.present_index))

    def hidden_states(self, sequence: Sequence, h: Tensor | None = None) -> Tensor:
        """Returns the hidden states after each time step of a sequence, ``(1, T, B, H)``."""
        joint = replace(sequence, previous_action=self.actions.join(sequence.previous_action))
        return self.alone.hidden_states(joint, h)

    def forward(self, sequence: Sequence, h: Tensor | None = None) -> tuple[JointDistribution, Tensor]:
        """Returns the distribution over ``(T, B, A, U)`` at each time step of a sequence, and the hidden states."""
        hidden_state = self.hidden_states(sequence, h)
        return self.distribution(hidden_state, sequence.state), hidden_state

    def clip(self, action: Tensor) -> Tensor:
        """Clips actions to their bounds, which are 0 in padding."""
        return action if self.discrete else clip_actions(action, self.low, self.high, self.present_index is not None)
