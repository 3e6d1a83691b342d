"""Implicit Q-learning, by one agent that sees and does everything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from momalit.baselines.joint_agent import JointActor, joint_team_spec
from momalit.baselines.offline_learner import require_at_least, require_between
from momalit.baselines.value_learner import Minibatch, ValueLearner
from momalit.core.records import Segments
from momalit.core.team import TeamSpec
from momalit.functional.surrogate import masked_mean
from momalit.functional.value_learning import advantage_weights, expectile_loss
from momalit.nn.actors import TeamActor
from momalit.nn.agent_values import MixedValues
from momalit.nn.mixers import NO_MIXER
from momalit.training.hyperparameters import plain_arguments


class ImplicitQLearner(ValueLearner):
    """Implicit Q-learning (Kostrikov, Nair, Levine, 2022) for whatever agents learn.

    V is fitted to an upper expectile of the twin target Qs of the log's own actions, Q to ``r + γ V(s')``, and the
    policies to the log's actions, weighted by their advantages. No action outside the log is ever valued.

    Args:
        spec: the team (the command line links it to the data).
        expectile: τ.
        temperature: β of the weights ``exp(β (Q - V))``.
        max_weight: upper bound of the weights.
        mixer: how the agents' values make the team's.
        **kwargs: see ``ValueLearner``.
    """

    def __init__(
        self,
        spec: TeamSpec | Mapping[str, Any],
        expectile: float,
        temperature: float,
        max_weight: float,
        mixer: str,
        **kwargs: Any,
    ) -> None:
        super().__init__(spec, **kwargs)
        require_between(0, 1, expectile=expectile)
        require_at_least(0, temperature=temperature)
        require_at_least(1, max_weight=max_weight)
        sizes = self.hparams["width"], self.gru_size
        self.q = MixedValues(self.team, 2, *sizes, of_actions=True, mixer=mixer)
        self.v = MixedValues(self.team, 1, *sizes, of_actions=False, mixer=mixer)
        self.q_target = self.target_of(self.q)

    def q_of_dataset_actions(self, network: MixedValues, batch: Minibatch) -> Tensor:
        """The twins' values of the log's actions, ``(2, T, B, 1 or A)``."""
        hidden_state = network.hidden_states(batch.inputs, batch.keep, batch.first, batch.last)
        values = network.actions(hidden_state, batch.scaled.unsqueeze(0)).squeeze(1)
        return self.scale.value(network.mix(values, batch.context[:-1]))

    def v_of(self, batch: Minibatch, begin: int, end: int) -> Tensor:
        """Values of the states at the times from ``begin`` to before ``end``, ``(end - begin, B, 1 or A)``."""
        hidden_state = self.v.hidden_states(batch.inputs, batch.keep, begin, end)
        context = batch.context[begin - batch.first : end - batch.first]
        return self.scale.value(self.v.mix(self.v.states(hidden_state), context)[0])

    def losses(self, batch: Minibatch) -> dict[str, Tensor]:
        if self.gru_size:
            v = self.v_of(batch, batch.first, batch.last + 1)
            v, following = v[:-1], v[1:].detach()
        else:  # without a memory successors are values of their own, and need no backward pass
            v = self.v_of(batch, batch.first, batch.last)
            with torch.no_grad():
                following = self.v_of(batch, batch.first + 1, batch.last + 1)
        with torch.no_grad():
            held = self.q_of_dataset_actions(self.q_target, batch).amin(0)
            target = self.bootstrapped(batch, following)
        value = masked_mean(expectile_loss(held - v, self.hparams["expectile"]), batch.valid)
        q = self.q_of_dataset_actions(self.q, batch)
        critic = masked_mean((q - target).square().sum(0), batch.valid)
        weight = advantage_weights(held - v.detach(), self.hparams["temperature"], self.hparams["max_weight"])
        known = self.hidden_states(self.policy, batch, batch.first, batch.last)
        policy = self.policy.distribution(known, batch.state[:-1])
        cloning = -masked_mean(weight * policy.log_prob(batch.action), batch.valid)
        self.record({"weight": masked_mean(weight, batch.valid), "v": masked_mean(v, batch.valid)})
        return {"value": value, "critic": critic, "policy": cloning}


class IQLModule(ImplicitQLearner):
    """Implicit Q-learning by one agent that sees the whole state and takes all actions: centralised execution.

    What no decentralised team can be expected to beat for want of coordination, only for want of good offline learning.

    Args:
        spec: the team (the command line links it to the data).
        expectile: τ, which part of the distribution of values V aims at.
        temperature: β of the weights exp(β (Q - V)); 0 clones the log.
        max_weight: upper bound of the weights.
        **kwargs: see ``ValueLearner``.
    """

    title = "IQL"

    def __init__(
        self,
        spec: TeamSpec | Mapping[str, Any],
        expectile: float = 0.7,
        temperature: float = 3.0,
        max_weight: float = 100.0,
        **kwargs: Any,
    ) -> None:
        arguments = plain_arguments(locals())
        super().__init__(spec, expectile, temperature, max_weight, NO_MIXER, **kwargs)
        self.save_hyperparameters(arguments)

    def learner_spec(self) -> TeamSpec:
        return joint_team_spec(self.spec)

    def to_team_actor(self, policy: TeamActor) -> JointActor:
        return JointActor(self.spec, policy)

    @property
    def joint_agent(self) -> JointActor:
        """The one agent, as the team knows it."""
        return cast(JointActor, self.actor)

    @property
    def policy(self) -> TeamActor:
        return self.joint_agent.alone

    def encode(self, segments: Segments) -> Minibatch:
        return super().encode(self.joint_agent.actions.of(segments))
