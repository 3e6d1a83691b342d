"""Conservative Q-learning with independent learners."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from momalit.baselines.value_learner import Minibatch, ValueLearner
from momalit.core.checks import require_numbers
from momalit.core.team import TeamSpec
from momalit.functional.surrogate import masked_mean
from momalit.functional.value_learning import conservative_gap
from momalit.nn.agent_values import AgentValues
from momalit.nn.distributions import TeamCategorical, TeamDistribution, TeamGaussian
from momalit.training.hyperparameters import plain_arguments

# Initial weight of the entropy bonus. With 1, the bonus outweighs rewards of 1 per step for thousands of steps.
INITIAL_TEMPERATURE = 0.1


class ConservativeLearner(ValueLearner):
    """Base class with twin Q-networks per agent, trained by CQL(H) (Kumar et al., 2020). Subclasses train the policies.

    CQL(H) keeps the Q-values of actions outside the dataset low. The regulariser's integral over continuous actions is
    estimated by importance sampling from three distributions: uniform, π(o) and π(o'). Each contributes
    ``n_action_samples`` actions. For discrete actions it is an exact sum. Targets are ``r + γ E min_c Q_c(o', a')``,
    where a' is an action of the policies and Q_c are target networks.

    Args:
        spec: the team (set from the dataset on the command line).
        cql_alpha: α, weight of the regulariser.
        n_action_samples: number of actions sampled from each of the three distributions.
        **kwargs: see ``ValueLearner``.
    """

    def __init__(
        self, spec: TeamSpec | Mapping[str, Any], cql_alpha: float, n_action_samples: int, **kwargs: Any
    ) -> None:
        super().__init__(spec, **kwargs)
        require_numbers("model.", {"cql_alpha": cql_alpha}, least=0)
        require_numbers("model.", {"n_action_samples": n_action_samples}, least=1)
        self.q = AgentValues(self.team, 2, self.hparams["width"], self.gru_size, of_actions=True)
        self.q_target = self.make_target(self.q)

    def policy_loss(self, batch: Minibatch, policy: TeamDistribution, hidden_state: Tensor) -> dict[str, Tensor]:
        """Returns the terms of the loss that train the policies, by name.

        Args:
            batch: the minibatch.
            policy: the policies, a distribution over ``(T, B, A, U)``.
            hidden_state: hidden states of the Q-networks ``(2 A, T, B, H)``, without gradient.
        """
        raise NotImplementedError

    def losses(self, batch: Minibatch) -> dict[str, Tensor]:
        policy_hidden = self.hidden_states(self.actor, batch, batch.first, batch.last + 1)
        policy = self.actor.distribution(policy_hidden[:, :-1], batch.state[:-1])
        with torch.no_grad():
            next_policy = self.actor.distribution(policy_hidden[:, 1:], batch.state[1:])
        hidden_state = self.q.hidden_states(batch.inputs, batch.keep, batch.first, batch.last)
        if isinstance(policy, TeamCategorical):
            values = self.scale.value(self.q.all_values(hidden_state))
            q = (values * self._chosen(batch.action, batch.state[:-1])).sum(-1)
            log_mask = torch.where(policy.logits > torch.finfo(policy.logits.dtype).min / 8, 0.0, -torch.inf)
            gap = conservative_gap((values + log_mask).movedim(-1, 0), q)
        else:
            assert isinstance(policy, TeamGaussian)
            assert isinstance(next_policy, TeamGaussian)
            sampled, log_density = self._sample_actions(policy, next_policy)
            # The dataset's actions come first, so that a single forward pass evaluates all actions.
            actions = torch.cat([batch.scaled_action.unsqueeze(0), sampled])
            values = self.scale.value(self.q.action_values(hidden_state, actions))
            q = values[:, 0]
            gap = conservative_gap(values[:, 1:].movedim(1, 0), q, log_density.unsqueeze(1))
        gap = self._of_present(gap, batch.state[:-1])
        critic = masked_mean((q - self._target(batch, next_policy)).square().sum(0), batch.valid)
        self.record({"q": masked_mean(q.mean(0), batch.valid), "gap": masked_mean(gap.mean(0), batch.valid)})
        conservative = self.hparams["cql_alpha"] * masked_mean(gap.sum(0), batch.valid)
        policy_losses = self.policy_loss(batch, policy, hidden_state.detach())
        return {"critic": critic, "conservative": conservative, **policy_losses}

    @torch.no_grad()
    def _sample_actions(self, policy: TeamGaussian, next_policy: TeamGaussian) -> tuple[Tensor, Tensor]:
        """Returns scaled actions ``(N, T, B, A, U)`` for the regulariser and their log-densities ``(N, T, B, A)``."""
        count, actor = self.hparams["n_action_samples"], self.actor
        shape = (count, *policy.mode.shape)
        uniform = torch.rand(shape, generator=self.noise, device=policy.mode.device) * 2 - 1
        # Densities are those of scaled actions. The uniform density on [-1, 1] is 1/2 for each component.
        uniform_log_density = -math.log(2) * actor.mask.sum(-1).expand(shape[:-1])
        actions, log_densities = [uniform * actor.mask], [uniform_log_density]
        log_scale = (actor.half_range.clamp(min=1e-8).log() * actor.mask).sum(-1)
        for distribution in (policy, next_policy):
            sampled = distribution.sample(self.noise, count)
            actions.append(actor.inputs.scaled(actor.clip(sampled)))
            log_densities.append(distribution.log_prob(sampled) + log_scale)
        return torch.cat(actions), torch.cat(log_densities)

    @torch.no_grad()
    def _target(self, batch: Minibatch, next_policy: TeamDistribution) -> Tensor:
        """Returns the targets of the Q-networks ``(T, B, A)``."""
        hidden_state = self.q_target.hidden_states(batch.inputs, batch.keep, batch.first + 1, batch.last + 1)
        if isinstance(next_policy, TeamCategorical):
            values = self.scale.value(self.q_target.all_values(hidden_state)).amin(0)
            value = (self._chosen(next_policy.logits.exp(), batch.state[1:]) * values).sum(-1)
        else:
            action = self.actor.inputs.scaled(self.actor.clip(next_policy.sample(self.noise)))
            value = self.scale.value(self.q_target.action_values(hidden_state, action.unsqueeze(0))).squeeze(1).amin(0)
        return self.td_target(batch, value)

    def _chosen(self, probability: Tensor, state: Tensor) -> Tensor:
        """Probabilities of discrete choices ``(T, B, A, U)``; equal ones for agents that have left and choose nothing.

        Otherwise the values of such agents would not depend on what is learnt, and the regulariser, which lowers the
        values of what was not chosen, would lower them without end.
        """
        present = self.actor.present(state)
        if present is None:
            return probability
        return torch.where(present > 0, probability, self.actor.mask / self.actor.mask.sum(-1, keepdim=True))

    def _of_present(self, values: Tensor, state: Tensor) -> Tensor:
        """``values`` ``(..., T, B, A)``, with 0 for agents that have left."""
        present = self.actor.present(state)
        return values if present is None else values * present.squeeze(-1)


class ICQLModule(ConservativeLearner):
    """Independent conservative Q-learning, with policies as in soft actor-critic (Haarnoja et al., 2018).

    Each agent's policy maximises the minimum of its twin Q-values plus an entropy bonus. The weight of the bonus, the
    temperature, is adapted so that the entropy stays near a target. For continuous actions, in units of half their
    range, the default target is -1 nat per component. For discrete actions, it is a tenth of the maximum entropy.

    Args:
        spec: the team (set from the dataset on the command line).
        cql_alpha: α, weight of the regulariser.
        n_action_samples: number of continuous actions sampled from each of the uniform distribution, π(o) and π(o').
        target_entropy: target entropy in nats, per component of continuous actions or per agent for discrete actions;
            None for the default target above.
        **kwargs: see ``ValueLearner``.
    """

    title = "ICQL"
    target_entropy: Tensor

    def __init__(
        self,
        spec: TeamSpec | Mapping[str, Any],
        cql_alpha: float = 1.0,
        n_action_samples: int = 10,
        target_entropy: float | None = None,
        **kwargs: Any,
    ) -> None:
        arguments = plain_arguments(locals())
        super().__init__(spec, cql_alpha, n_action_samples, **kwargs)
        self.save_hyperparameters(arguments)
        size = self.actor.mask.sum(-1)
        count = torch.ones_like(size) if self.team.discrete else size
        default = 0.1 * size.log() if self.team.discrete else -size
        target = default if target_entropy is None else target_entropy * count
        self.register_buffer("target_entropy", target, persistent=False)
        self.log_temperature = nn.Parameter(torch.full((self.team.n_agents,), math.log(INITIAL_TEMPERATURE)))

    def policy_loss(self, batch: Minibatch, policy: TeamDistribution, hidden_state: Tensor) -> dict[str, Tensor]:
        """Returns the expectation of ``α log π(a | o) - min_c Q_c(o, a)``, and the loss of the temperatures α."""
        entropy = policy.entropy
        temperature = self.log_temperature.exp()
        if isinstance(policy, TeamCategorical):
            values = self.scale.value(self.q.all_values(hidden_state, frozen=True)).amin(0)
            value = (policy.logits.exp() * values).sum(-1)
        else:
            entropy = entropy - (self.actor.half_range.clamp(min=1e-8).log() * self.actor.mask).sum(-1)
            action = self.actor.inputs.scaled(self.actor.clip(policy.sample(self.noise)))
            values = self.q.action_values(hidden_state, action.unsqueeze(0), frozen=True)
            value = self.scale.value(values).squeeze(1).amin(0)
        now = batch.state[:-1]
        loss = -masked_mean(self._of_present(temperature.detach() * entropy + value, now), batch.valid)
        entropy_gap = self._of_present(entropy.detach() - self.target_entropy, now)
        temperature_loss = masked_mean(self.log_temperature * entropy_gap, batch.valid)
        self.record({"entropy": masked_mean(entropy, batch.valid), "entropy_weight": temperature.mean()})
        return {"policy": loss, "temperature": temperature_loss}
