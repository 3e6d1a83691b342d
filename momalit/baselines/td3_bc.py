"""TD3+BC with independent learners."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from momalit.baselines.value_learner import Minibatch, ValueLearner
from momalit.core.checks import require_numbers
from momalit.core.team import TeamSpec
from momalit.functional.surrogate import masked_mean
from momalit.functional.value_learning import squared_distance, value_weight
from momalit.nn.agent_values import AgentValues
from momalit.training.hyperparameters import plain_arguments


class ITD3BCModule(ValueLearner):
    """Independent TD3+BC (Fujimoto & Gu, 2021): each agent maximises its own Q and imitates the dataset's actions.

    The policies are deterministic. Twin Q-networks are trained with target networks, and clipped noise smooths the
    target policies' actions. Policies and target networks are updated less often than the Q-networks (Fujimoto et al.,
    2018). Actions are in units of half their range.

    Args:
        spec: the team (set from the dataset on the command line); continuous actions only.
        alpha: α of λ = α / mean|Q|, the weight of the Q-values relative to imitation.
        policy_noise: standard deviation of the noise on the target policies' actions.
        policy_noise_clip: largest absolute value of that noise.
        policy_delay: updates of the Q-networks per update of the policies.
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
        require_numbers(
            "model.", {"alpha": alpha, "policy_noise": policy_noise, "policy_noise_clip": policy_noise_clip}, least=0
        )
        require_numbers("model.", {"policy_delay": policy_delay}, least=1)
        self.require_continuous()
        self.actor.raw_std.requires_grad_(False)  # the policies are deterministic
        self.q = AgentValues(self.team, 2, self.hparams["width"], self.gru_size, of_actions=True)
        self.q_target, self.policy_target = self.make_target(self.q), self.make_target(self.actor)

    @property
    def updates_policies(self) -> bool:
        """Whether this gradient step updates the policies."""
        return self.global_step % self.hparams["policy_delay"] == self.hparams["policy_delay"] - 1

    def losses(self, batch: Minibatch) -> dict[str, Tensor]:
        hidden_state = self.q.hidden_states(batch.inputs, batch.keep, batch.first, batch.last)
        q = self.scale.value(self.q.action_values(hidden_state, batch.scaled_action.unsqueeze(0)).squeeze(1))
        critic = masked_mean((q - self.target(batch)).square().sum(0), batch.valid)
        self.record({"q": masked_mean(q.mean(0), batch.valid)})
        return {"critic": critic, "policy": self.policy_loss(batch, hidden_state.detach())}

    @torch.no_grad()
    def target(self, batch: Minibatch) -> Tensor:
        """Returns ``r + γ min_c Q_c(o', π(o') + ε)`` of the target networks, ``(T, B, A)``."""
        begin, end = batch.first + 1, batch.last + 1
        next_policy = self.policy_target.distribution(
            self.hidden_states(self.policy_target, batch, begin, end), batch.state[1:]
        )
        action = self.policy.inputs.scaled(next_policy.mode)
        noise = torch.randn(action.shape, generator=self.noise, device=action.device) * self.hparams["policy_noise"]
        limit = self.hparams["policy_noise_clip"]
        action = (action + noise.clamp(-limit, limit)).clamp(-1, 1) * self.actor.mask
        hidden_state = self.q_target.hidden_states(batch.inputs, batch.keep, begin, end)
        values = self.scale.value(self.q_target.action_values(hidden_state, action.unsqueeze(0)).squeeze(1))
        return self.td_target(batch, values.amin(0))

    def policy_loss(self, batch: Minibatch, hidden_state: Tensor) -> Tensor:
        """Returns ``-λ Q_1(o, π(o)) + (π(o) - a)²``, or zero in steps that do not update the policies."""
        if not self.updates_policies:
            # DistributedDataParallel needs every weight in the loss. The zero gradients are removed before the step.
            distributed = self.trainer.world_size > 1
            weights = [weight.sum() for weight in self.actor.parameters() if weight.requires_grad and distributed]
            return 0.0 * torch.stack([*weights, batch.reward.new_zeros(())]).sum()
        policy_hidden = self.hidden_states(self.actor, batch, batch.first, batch.last)
        action = self.actor.inputs.scaled(self.actor.distribution(policy_hidden, batch.state[:-1]).mode)
        hidden_state = hidden_state[: self.team.n_agents]  # of the first Q-networks
        value = self.scale.value(self.q.action_values(hidden_state, action.unsqueeze(0), frozen=True)[0, 0])
        weight = value_weight(value, batch.valid, self.hparams["alpha"])
        imitation = squared_distance(action, batch.scaled_action, batch.valid, self.actor.mask)
        return imitation - masked_mean(weight * value, batch.valid)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Removes the policies' gradients in steps that do not update them.

        Adam skips parameters without a gradient, so its momentum does not change them either.
        """
        if not self.updates_policies:
            for weight in self.actor.parameters():
                weight.grad = None

    def update_targets(self) -> None:
        if self.updates_policies:
            super().update_targets()
