"""Conservative Q-learning by independent learners."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from momalit.baselines.offline_learner import require_at_least
from momalit.baselines.value_learner import Minibatch, ValueLearner
from momalit.core.team import TeamSpec
from momalit.functional.surrogate import masked_mean
from momalit.functional.value_learning import conservative_gap
from momalit.nn.agent_values import AgentValues
from momalit.nn.distributions import TeamCategorical, TeamDistribution, TeamGaussian
from momalit.training.hyperparameters import plain_arguments

TEMPERATURE = 0.1  # weight of the entropy bonus at first; with 1 it drowns rewards of 1 per step for thousands of steps


class ConservativeLearner(ValueLearner):
    """Twin Qs per agent that CQL(H) keeps low on actions outside the log (Kumar et al., 2020), and no policies yet.

    The regulariser's integral over actions is estimated from ``samples`` actions each of the uniform distribution, of
    π(o) and of π(o'), with importance weights; over choices it is summed. Targets are ``r + γ E min_c Q_c(o', a')``
    over the policies' actions, from slow copies of the Qs.

    Args:
        spec: the team (the command line links it to the data).
        cql_alpha: α, weight of the regulariser.
        n_action_samples: actions drawn from each of the three distributions.
        **kwargs: see ``ValueLearner``.
    """

    def __init__(
        self, spec: TeamSpec | Mapping[str, Any], cql_alpha: float, n_action_samples: int, **kwargs: Any
    ) -> None:
        super().__init__(spec, **kwargs)
        require_at_least(0, cql_alpha=cql_alpha)
        require_at_least(1, n_action_samples=n_action_samples)
        self.q = AgentValues(self.team, 2, self.hparams["width"], self.gru_size, of_actions=True)
        self.q_target = self.target_of(self.q)

    def policy_loss(self, batch: Minibatch, policy: TeamDistribution, hidden_state: Tensor) -> dict[str, Tensor]:
        """What the policies ``(T, B, A, U)`` minimise, given what the Qs know, ``(2 A, T, B, H)`` without gradient."""
        raise NotImplementedError

    def losses(self, batch: Minibatch) -> dict[str, Tensor]:
        known = self.hidden_states(self.actor, batch, batch.first, batch.last + 1)
        now = self.actor.distribution(known[:, :-1], batch.state[:-1])
        with torch.no_grad():
            following = self.actor.distribution(known[:, 1:], batch.state[1:])
        hidden_state = self.q.hidden_states(batch.inputs, batch.keep, batch.first, batch.last)
        if isinstance(now, TeamCategorical):
            every = self.scale.value(self.q.every(hidden_state))
            q = (every * batch.action).sum(-1)
            allowed = torch.where(now.logits > torch.finfo(now.logits.dtype).min / 8, 0.0, -torch.inf)
            gap = conservative_gap((every + allowed).movedim(-1, 0), q)
        else:
            assert isinstance(following, TeamGaussian)
            tried, log_density = self._tried(now, following)
            # The log's action goes first, so that one product values all.
            values = self.scale.value(self.q.actions(hidden_state, torch.cat([batch.scaled.unsqueeze(0), tried])))
            q = values[:, 0]
            gap = conservative_gap(values[:, 1:].movedim(1, 0), q, log_density.unsqueeze(1))
        critic = masked_mean((q - self._target(batch, following)).square().sum(0), batch.valid)
        self.record({"q": masked_mean(q.mean(0), batch.valid), "gap": masked_mean(gap.mean(0), batch.valid)})
        conservative = self.hparams["cql_alpha"] * masked_mean(gap.sum(0), batch.valid)
        policy = self.policy_loss(batch, now, hidden_state.detach())
        return {"critic": critic, "conservative": conservative, **policy}

    @torch.no_grad()
    def _tried(self, now: TeamGaussian, following: TeamGaussian) -> tuple[Tensor, Tensor]:
        """Scaled actions ``(N, T, B, A, U)`` for the regulariser and their log-densities ``(N, T, B, A)``."""
        count, actor = self.hparams["n_action_samples"], self.actor
        shape = (count, *now.mode.shape)
        uniform = torch.rand(shape, generator=self.noise, device=now.mode.device) * 2 - 1
        # Densities are those of scaled actions: a component has 1/2 where it is uniform on [-1, 1].
        density = -math.log(2) * actor.mask.sum(-1).expand(shape[:-1])
        actions, densities = [uniform * actor.mask], [density]
        stretch = (actor.half_range.clamp(min=1e-8).log() * actor.mask).sum(-1)
        for policy in (now, following):
            drawn = policy.sample(self.noise, count)
            actions.append(actor.inputs.scaled(actor.clip(drawn)))
            densities.append(policy.log_prob(drawn) + stretch)
        return torch.cat(actions), torch.cat(densities)

    @torch.no_grad()
    def _target(self, batch: Minibatch, following: TeamDistribution) -> Tensor:
        """Targets of the Qs ``(T, B, A)``."""
        hidden_state = self.q_target.hidden_states(batch.inputs, batch.keep, batch.first + 1, batch.last + 1)
        if isinstance(following, TeamCategorical):
            value = (following.logits.exp() * self.scale.value(self.q_target.every(hidden_state)).amin(0)).sum(-1)
        else:
            action = self.actor.inputs.scaled(self.actor.clip(following.sample(self.noise)))
            value = self.scale.value(self.q_target.actions(hidden_state, action.unsqueeze(0))).squeeze(1).amin(0)
        return self.bootstrapped(batch, value)


class ICQLModule(ConservativeLearner):
    """Independent conservative Q-learning, with policies as in soft actor-critic (Haarnoja et al., 2018).

    Each agent's policy maximises the lesser of its two Qs and an entropy bonus, whose weight is steered so that the
    entropy keeps to a target: -1 nat per component of a continuous action in units of half its range, and a tenth of
    the largest possible one over choices.

    Args:
        spec: the team (the command line links it to the data).
        cql_alpha: α, weight of the regulariser.
        n_action_samples: actions drawn from each of the uniform distribution, π(o) and π(o'); choices are summed over.
        target_entropy: nats per continuous component, or per choice, that policies keep; None for the above.
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
        each = torch.ones_like(size) if self.team.discrete else size
        usual = 0.1 * size.log() if self.team.discrete else -size
        aim = usual if target_entropy is None else target_entropy * each
        self.register_buffer("target_entropy", aim, persistent=False)
        self.log_temperature = nn.Parameter(torch.full((self.team.n_agents,), math.log(TEMPERATURE)))

    def policy_loss(self, batch: Minibatch, policy: TeamDistribution, hidden_state: Tensor) -> dict[str, Tensor]:
        """``α log π(a | o) - min_c Q_c(o, a)`` in expectation, and the loss of each agent's temperature α."""
        entropy = policy.entropy
        temperature = self.log_temperature.exp()
        if isinstance(policy, TeamCategorical):
            every = self.scale.value(self.q.every(hidden_state, frozen=True)).amin(0)
            value = (policy.logits.exp() * every).sum(-1)
        else:
            entropy = entropy - (self.actor.half_range.clamp(min=1e-8).log() * self.actor.mask).sum(-1)
            action = self.actor.inputs.scaled(self.actor.clip(policy.sample(self.noise)))
            value = self.scale.value(self.q.actions(hidden_state, action.unsqueeze(0), frozen=True)).squeeze(1).amin(0)
        loss = -masked_mean(temperature.detach() * entropy + value, batch.valid)
        steering = masked_mean(self.log_temperature * (entropy.detach() - self.target_entropy), batch.valid)
        self.record({"entropy": masked_mean(entropy, batch.valid), "entropy_weight": temperature.mean()})
        return {"policy": loss, "temperature": steering}
