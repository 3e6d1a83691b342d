"""TD3+BC by independent learners."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from momalit.baselines.offline_learner import require_at_least
from momalit.baselines.value_learner import Minibatch, ValueLearner
from momalit.core.team import TeamSpec
from momalit.functional.surrogate import masked_mean
from momalit.functional.value_learning import squared_distance, value_weight
from momalit.nn.agent_values import AgentValues
from momalit.training.hyperparameters import plain_arguments


class ITD3BCModule(ValueLearner):
    """Independent TD3+BC (Fujimoto & Gu, 2021): each agent maximises its own Q and stays near the log's actions.

    Deterministic policies; twin Qs with targets from slow copies, whose actions are smoothed by clipped noise; policies
    and slow copies are updated less often than the Qs (Fujimoto et al., 2018). Actions are measured in units of half
    their range.

    Args:
        spec: the team (the command line links it to the data); continuous actions only.
        alpha: α of λ = α / mean|Q|, what values weigh against imitation.
        policy_noise: deviation of the noise on the target policies' actions.
        policy_noise_clip: its bound.
        policy_delay: updates of the Qs per update of the policies.
        **kwargs: see ``ValueLearner``.
    """

    title, deterministic = "ITD3+BC", True

    def __init__(
        self,
        spec: TeamSpec | Mapping[str, Any],
        alpha: float = 2.5,
        policy_noise: float = 0.2,
        policy_noise_clip: float = 0.5,
        policy_delay: int = 2,
        **kwargs: Any,
    ) -> None:
        arguments = plain_arguments(locals())
        super().__init__(spec, initial_std=0.5, min_std=0.05, **kwargs)
        self.save_hyperparameters(arguments)
        require_at_least(0, alpha=alpha, policy_noise=policy_noise, policy_noise_clip=policy_noise_clip)
        require_at_least(1, policy_delay=policy_delay)
        self.require_continuous()
        self.actor.raw_std.requires_grad_(False)  # nothing is sampled from it
        self.q = AgentValues(self.team, 2, self.hparams["width"], self.gru_size, of_actions=True)
        self.q_target, self.policy_target = self.target_of(self.q), self.target_of(self.actor)

    @property
    def policy_due(self) -> bool:
        """Whether this step updates the policies."""
        return self.global_step % self.hparams["policy_delay"] == self.hparams["policy_delay"] - 1

    def losses(self, batch: Minibatch) -> dict[str, Tensor]:
        hidden_state = self.q.hidden_states(batch.inputs, batch.keep, batch.first, batch.last)
        q = self.scale.value(self.q.actions(hidden_state, batch.scaled.unsqueeze(0)).squeeze(1))
        critic = masked_mean((q - self.target(batch)).square().sum(0), batch.valid)
        self.record({"q": masked_mean(q.mean(0), batch.valid)})
        return {"critic": critic, "policy": self.policy_loss(batch, hidden_state.detach())}

    @torch.no_grad()
    def target(self, batch: Minibatch) -> Tensor:
        """``r + γ min_c Q_c(o', π(o') + ε)`` by the slow copies, ``(T, B, A)``."""
        begin, end = batch.first + 1, batch.last + 1
        following = self.policy_target.distribution(
            self.hidden_states(self.policy_target, batch, begin, end), batch.state[1:]
        )
        action = self.policy.inputs.scaled(following.mode)
        noise = torch.randn(action.shape, generator=self.noise, device=action.device) * self.hparams["policy_noise"]
        limit = self.hparams["policy_noise_clip"]
        action = (action + noise.clamp(-limit, limit)).clamp(-1, 1) * self.actor.mask
        hidden_state = self.q_target.hidden_states(batch.inputs, batch.keep, begin, end)
        values = self.scale.value(self.q_target.actions(hidden_state, action.unsqueeze(0)).squeeze(1))
        return self.bootstrapped(batch, values.amin(0))

    def policy_loss(self, batch: Minibatch, hidden_state: Tensor) -> Tensor:
        """``-λ Q_1(o, π(o)) + (π(o) - a)²``, or a zero where the policies wait."""
        if not self.policy_due:
            # DistributedDataParallel wants every weight in the loss; what that leaves is removed before the step.
            several = self.trainer.world_size > 1
            weights = [weight.sum() for weight in self.actor.parameters() if weight.requires_grad and several]
            return 0.0 * torch.stack([*weights, batch.reward.new_zeros(())]).sum()
        now = self.hidden_states(self.actor, batch, batch.first, batch.last)
        action = self.actor.inputs.scaled(self.actor.distribution(now, batch.state[:-1]).mode)
        first = hidden_state[: self.team.n_agents]
        value = self.scale.value(self.q.actions(first, action.unsqueeze(0), frozen=True)[0, 0])
        weight = value_weight(value, batch.valid, self.hparams["alpha"])
        imitation = squared_distance(action, batch.scaled, batch.valid, self.actor.mask)
        return imitation - masked_mean(weight * value, batch.valid)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """While the policies wait, not even their momentum moves them."""
        if not self.policy_due:
            for weight in self.actor.parameters():
                weight.grad = None

    def update_targets(self) -> None:
        if self.policy_due:
            super().update_targets()
