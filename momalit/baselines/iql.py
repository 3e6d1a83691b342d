"""Implicit Q-learning with one joint agent that observes the whole state and takes all actions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from momalit.baselines.joint_agent import JointActor, joint_team_spec
from momalit.baselines.value_learner import Minibatch, ValueLearner
from momalit.core.checks import require_numbers
from momalit.core.records import Segments
from momalit.core.team import TeamSpec
from momalit.functional.surrogate import masked_mean
from momalit.functional.value_learning import advantage_weights, expectile_loss
from momalit.nn.actors import TeamActor
from momalit.nn.agent_values import MixedValues
from momalit.nn.mixers import NO_MIXER
from momalit.training.hyperparameters import plain_arguments


class ImplicitQLearner(ValueLearner):
    """Implicit Q-learning (Kostrikov, Nair, Levine, 2022), for decentralised agents or one joint agent.

    V is fitted to an expectile of the Q-values of the dataset's actions (the minimum of the twin target networks), and
    Q to ``r + γ V(s')``. The policies are trained on the dataset's actions, weighted by their advantages. Actions
    outside the dataset are never evaluated.

    Args:
        spec: the team (set from the dataset on the command line).
        expectile: τ, in (0, 1).
        temperature: β of the weights ``exp(β (Q - V))``.
        max_weight: upper bound of the weights.
        mixer: how the agents' values are combined into team values (see ``MAIQLModule``).
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
        require_numbers("model.", {"expectile": expectile}, above=0, below=1)
        require_numbers("model.", {"temperature": temperature}, least=0)
        require_numbers("model.", {"max_weight": max_weight}, least=1)
        sizes = self.hparams["width"], self.gru_size
        self.q = MixedValues(self.team, 2, *sizes, of_actions=True, mixer=mixer)
        self.v = MixedValues(self.team, 1, *sizes, of_actions=False, mixer=mixer)
        self.q_target = self.make_target(self.q)

    def q_of_dataset_actions(self, network: MixedValues, batch: Minibatch) -> Tensor:
        """Returns the twin Q-values of the dataset's actions, ``(2, T, B, 1 or A)``."""
        hidden_state = network.hidden_states(batch.inputs, batch.keep, batch.first, batch.last)
        values = network.action_values(hidden_state, batch.scaled_action.unsqueeze(0)).squeeze(1)
        return self.scale.value(network.mix(values, batch.context[:-1]))

    def state_values(self, batch: Minibatch, begin: int, end: int) -> Tensor:
        """Returns the values of the states at time steps ``begin`` to ``end - 1``, ``(end - begin, B, 1 or A)``."""
        hidden_state = self.v.hidden_states(batch.inputs, batch.keep, begin, end)
        context = batch.context[begin - batch.first : end - batch.first]
        return self.scale.value(self.v.mix(self.v.state_values(hidden_state), context)[0])

    def losses(self, batch: Minibatch) -> dict[str, Tensor]:
        if self.gru_size:
            v = self.state_values(batch, batch.first, batch.last + 1)
            v, next_v = v[:-1], v[1:].detach()
        else:  # without a GRU, the values of the next states are computed separately, without gradient
            v = self.state_values(batch, batch.first, batch.last)
            with torch.no_grad():
                next_v = self.state_values(batch, batch.first + 1, batch.last + 1)
        with torch.no_grad():
            target_q = self.q_of_dataset_actions(self.q_target, batch).amin(0)
            td_target = self.td_target(batch, next_v)
        value_loss = masked_mean(expectile_loss(target_q - v, self.hparams["expectile"]), batch.valid)
        q = self.q_of_dataset_actions(self.q, batch)
        q_loss = masked_mean((q - td_target).square().sum(0), batch.valid)
        weight = advantage_weights(target_q - v.detach(), self.hparams["temperature"], self.hparams["max_weight"])
        hidden_state = self.hidden_states(self.policy, batch, batch.first, batch.last)
        policy = self.policy.distribution(hidden_state, batch.state[:-1])
        policy_loss = -masked_mean(weight * policy.log_prob(batch.action), batch.valid)
        self.record({"weight": masked_mean(weight, batch.valid), "v": masked_mean(v, batch.valid)})
        return {"value": value_loss, "critic": q_loss, "policy": policy_loss}


class IQLModule(ImplicitQLearner):
    """Implicit Q-learning with one joint agent that observes the whole state and takes all actions.

    Execution is centralised, so the method has no coordination problem. A decentralised team can outperform it only
    through better offline learning.

    Args:
        spec: the team (set from the dataset on the command line).
        expectile: τ; V is the τ-expectile of the Q-values of the dataset's actions.
        temperature: β of the weights exp(β (Q - V)); 0 is behaviour cloning.
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
        """The actor of the joint agent."""
        return cast(JointActor, self.actor)

    @property
    def policy(self) -> TeamActor:
        return self.joint_agent.alone

    def encode(self, segments: Segments) -> Minibatch:
        return super().encode(self.joint_agent.actions.join_segments(segments))
