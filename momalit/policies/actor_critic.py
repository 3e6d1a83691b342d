"""ActorCriticModule: policies and a critic with one optimiser and adaptive coefficients."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from momalit.core.errors import UserError
from momalit.core.team import TeamSpec
from momalit.nn.actors import TeamActor
from momalit.nn.critics import TeamCritic
from momalit.policies.team_policy import TeamPolicyModule, load_policies
from momalit.training.epoch_means import Means

ACTOR, CRITIC = "actor", "critic"


class ActorCriticModule(TeamPolicyModule):
    """Policies, their running average and a critic.

    One optimiser updates actors and critic, and their gradients are clipped separately. The entropy bonus and the
    actors' learning rate adapt once per epoch. In the first ``critic_warmup`` epochs that rate is 0. A subclass first
    saves the hyper-parameters that are read here (see ``PPOModule``) and then calls ``make_networks``.

    Args:
        spec: the team.
    """

    entropy_weight: Tensor
    lr_factor: Tensor

    def __init__(self, spec: TeamSpec | Mapping[str, Any]) -> None:
        super().__init__(spec)
        self.averaged: TeamActor | None = None
        self.critic: TeamCritic
        self.trained: tuple[str, ...] = (ACTOR, CRITIC)  # the networks that gradient steps of this process change
        self._means = Means()

    def make_networks(self) -> None:
        """Creates actors and critic from the hyper-parameters."""
        sizes = {name: self.hparams[name] for name in ("width", "gru_size", "share_parameters")}
        std = {name: self.hparams[name] for name in ("initial_std", "min_std")}
        self.actor = TeamActor(self.spec, **sizes, **std)
        if self.hparams["ema_decay"]:
            self.averaged = copy.deepcopy(self.actor).requires_grad_(False)
        self.critic = TeamCritic(
            self.spec, mixer=self.hparams["mixer"], observes=self.hparams["critic_observes"], **sizes
        )
        self.register_buffer("entropy_weight", torch.tensor(float(self.hparams["entropy_coefficient"])))
        self.register_buffer("lr_factor", torch.tensor(1.0))

    def warm_start_from(self, path: str | Path, mine: str, std: float | None) -> None:
        """Copies the policies of another team, with the statistics of their inputs.

        Args:
            path: checkpoint of a team with one policy per agent.
            mine: the source of this team for error messages, e.g. ``the dataset``.
            std: standard deviation of the actions, as a fraction of half the action range; None keeps the checkpoint's.

        Raises:
            UserError: the checkpoint belongs to another team, or its networks have other sizes.
        """
        initial = load_policies(path)
        self.spec.require_same(initial.spec, mine, f"warm start {path}")
        if initial.sizes != self.actor.sizes:
            sizes = (initial.sizes, self.actor.sizes)
            found, expected = (", ".join(f"{name} {size}" for name, size in values.items()) for values in sizes)
            raise UserError(f"model.warm_start: {path} has {found}, expected {expected}")
        self.actor.copy_policies(initial)
        if self.averaged is not None:
            self.averaged.load_state_dict(self.actor.state_dict())
        if std is not None:
            self.actor.set_std(std, "warm_start_std")

    @property
    def networks(self) -> dict[str, TeamActor | TeamCritic]:
        """Actors and critic by name."""
        return {ACTOR: self.actor, CRITIC: self.critic}

    # --- optimisation ----------------------------------------------------------------------------------------------
    def make_optimizer(self) -> torch.optim.Optimizer:
        """Returns one optimiser with a parameter group for the actors and one for the critic."""
        lr = self.hparams["lr"]
        groups = [
            {"params": list(self.actor.parameters()), "lr": lr},
            {"params": list(self.critic.parameters()), "lr": self.hparams["critic_lr"] or lr},
        ]
        return torch.optim.Adam(groups, eps=1e-5, fused=self.fused)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.make_optimizer()
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, [self._actor_multiplier, self._decay])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "epoch"}}

    def progress(self, epoch: int) -> float:
        """Fraction of the training that is done before ``epoch``; 0 without ``max_epochs``."""
        total = self.trainer.max_epochs or -1
        return min(epoch / total, 1.0) if total > 0 else 0.0

    def _decay(self, epoch: int) -> float:
        return float(1 - self.progress(epoch) * (1 - self.hparams["final_lr_fraction"]))

    def _actor_multiplier(self, epoch: int) -> float:
        return 0.0 if self.warming_up(epoch) else float(self.lr_factor) * self._decay(epoch)

    def warming_up(self, epoch: int) -> bool:
        """Whether only the critic learns in an epoch: in the first ``critic_warmup``, but never in more than half."""
        warmup = self.hparams["critic_warmup"]
        return bool(epoch < warmup and self.progress(epoch + 1) <= 0.5)

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Clips actors and critic separately, so that large critic gradients do not shrink the actors' updates."""
        parts = [[p.grad for p in self.networks[name].parameters() if p.grad is not None] for name in self.trained]
        norms = torch.stack(torch._foreach_norm([gradient for part in parts for gradient in part]))
        norm = torch.stack([torch.linalg.vector_norm(part) for part in norms.split([len(part) for part in parts])])
        max_norm = norm.new_tensor([self.hparams[f"{name}_max_grad_norm"] for name in self.trained])
        for gradients, factor in zip(parts, (max_norm / (norm + 1e-6)).clamp(max=1.0), strict=True):
            torch._foreach_mul_(gradients, factor)
        for name, value in zip(self.trained, norm, strict=True):
            self.record({f"gradient/{name}": value})

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Updates the average after an iteration's last gradient step, before any evaluation."""
        if self.averaged is not None and batch_idx + 1 == self.trainer.num_training_batches:
            # The first iterations are averaged uniformly, so that the initial weights do not dominate.
            weight = max(1 - self.hparams["ema_decay"], 1 / (self.current_epoch + 1))
            with torch.no_grad():
                torch._foreach_lerp_(list(self.averaged.parameters()), list(self.actor.parameters()), weight)
                for average, latest in zip(self.averaged.buffers(), self.actor.buffers(), strict=True):
                    average.copy_(latest)

    @property
    def deployed(self) -> TeamActor:
        """The running average of the policies if ``ema_decay`` is set, else the policies themselves."""
        return self.averaged or self.actor

    def record(self, values: Mapping[str, Tensor]) -> None:
        """Adds scalars to the iteration's means without a transfer to the CPU."""
        self._means.add(values)

    def swap_means(self, means: Means) -> Means:
        """Replaces the means that ``record`` adds to; returns those of before."""
        before, self._means = self._means, means
        return before

    def merge_means(self, means: Means) -> None:
        """Adds the scalars of ``means``, which have other names than those recorded so far."""
        self._means.merge(means)

    def pop_means(self) -> dict[str, Tensor]:
        """Returns the means since the last call and resets them."""
        return self._means.take()

    def adapt_coefficients(self, means: dict[str, Tensor]) -> None:
        """Adapts entropy bonus and learning rate to their targets, given the iteration's means over all processes.

        In the critic's warm-up, in which the policies stand still, it does nothing.
        """
        if self.warming_up(self.current_epoch):
            return
        target, kl = self.hparams["target_entropy"], self.hparams["target_kl"]
        if target is not None:
            components = [1 if agent.discrete else agent.action_size for agent in self.spec.agents]
            shortfall = target - means["policy/entropy"] / (sum(components) / len(components))
            self.entropy_weight.copy_((self.entropy_weight.clamp(min=1e-5) * torch.exp(0.1 * shortfall)).clamp(max=1.0))
        if kl is not None:
            measured = means["policy/kl"]
            change = torch.where(measured > 1.5 * kl, 1 / 1.2, torch.where(measured < kl / 1.5, 1.2, 1.0))
            self.lr_factor.copy_((self.lr_factor * change).clamp(0.02, 1.0))
