"""PPO for a team with a centralised critic.

Subclasses define the source of rollouts: a world model (``MOMAPPOModule``) or the real environment (``MAPPOModule``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from momalit.core.checks import require_choice, require_numbers
from momalit.core.distributed import (
    count_on_rank,
    gather_tensor,
    is_distributed,
    mean_over_processes,
    process_weights,
    reweight,
)
from momalit.core.errors import UserError
from momalit.core.records import Rollout, Sequence, Start
from momalit.core.team import TeamSpec
from momalit.functional.gae import generalized_advantage
from momalit.functional.statistics import explained_variance, global_mean_and_std, global_moments, normalize
from momalit.functional.surrogate import clipped_objective, kl_estimate, masked_mean, masked_means
from momalit.nn.distributions import TeamDistribution
from momalit.nn.recurrent_trunk import run_trunks
from momalit.policies.actor_critic import ACTOR, CRITIC, ActorCriticModule
from momalit.policies.critic_beside import CriticBeside
from momalit.policies.rollout_settings import BOOTSTRAP, END, TIME_LIMITS
from momalit.training.batches import keyed_generator
from momalit.training.hyperparameters import plain_arguments
from momalit.training.trainer_checks import require_no_trainer_clipping


class PPOModule(ActorCriticModule):
    """Proximal policy optimisation (PPO) of a team.

    One epoch is one policy iteration: it collects rollouts and then passes over them ``ppo_epochs`` times in
    minibatches of whole rollouts.

    Args:
        spec: the team (the command line links it to the data).
        horizon: k, steps per rollout.
        n_rollouts: rollouts per iteration, in all processes together.
        width: units of the linear layers.
        gru_size: hidden units of the GRUs.
        mixer: ``qmix``, ``vdn``, ``linear`` or ``none``.
        critic_observes: what the critic's networks read: ``observations`` for those of their agents, or ``state``.
        share_parameters: one network for all agents.
        lr: learning rate of the actors.
        critic_lr: learning rate of the critic; None for the same.
        critic_warmup: iterations at the start in which only the critic learns, so that the policies' first steps do not
            follow values that know nothing; at most half of ``max_epochs``.
        final_lr_fraction: fraction of the initial learning rates at ``max_epochs``, reached by linear decay.
        ppo_epochs: passes over the rollouts of an iteration.
        n_minibatches: minibatches per pass.
        discount: γ.
        gae_lambda: λ of generalised advantage estimation.
        time_limit: what an episode's time limit means. ``bootstrap``: the task goes on, so returns continue with the
            value of the next state. ``end``: nothing comes after it, so returns end there and the critic learns, with
            its memory, how many steps are left; for short episodes whose sum of rewards is what counts.
        clip_epsilon: ε of the clipped surrogate objective.
        value_coefficient: weight of the value loss.
        entropy_coefficient: weight of the entropy bonus (the initial weight if ``target_entropy`` is set).
        target_entropy: entropy per action component, in nats, to which the bonus adapts; None for a fixed bonus.
        actor_max_grad_norm: largest gradient norm of the actors.
        critic_max_grad_norm: largest gradient norm of the critic.
        target_kl: KL divergence per iteration to which the actors' learning rate adapts; None turns adaptation off.
        ema_decay: decay of the running average of the policies' weights, updated once per iteration. The average is
            evaluated and deployed. 0 deploys the trained weights.
        initial_std: initial standard deviation of actions, as a fraction of half the action range.
        min_std: lower bound of the standard deviation, in the same unit.
    """

    steps_taken: Tensor

    def __init__(
        self,
        spec: TeamSpec | Mapping[str, Any],
        horizon: int = 50,
        n_rollouts: int = 64,
        width: int = 256,
        gru_size: int = 128,
        mixer: str = "qmix",
        critic_observes: str = "observations",
        share_parameters: bool = False,
        lr: float = 5e-4,
        critic_lr: float | None = None,
        critic_warmup: int = 0,
        final_lr_fraction: float = 0.1,
        ppo_epochs: int = 5,
        n_minibatches: int = 4,
        discount: float = 0.99,
        gae_lambda: float = 0.95,
        time_limit: str = BOOTSTRAP,
        clip_epsilon: float = 0.2,
        value_coefficient: float = 1.0,
        entropy_coefficient: float = 0.0,
        target_entropy: float | None = None,
        actor_max_grad_norm: float = 0.5,
        critic_max_grad_norm: float = 1.0,
        target_kl: float | None = None,
        ema_decay: float = 0.0,
        initial_std: float = 0.5,
        min_std: float = 0.05,
    ) -> None:
        arguments = plain_arguments(locals())
        super().__init__(spec)
        self.save_hyperparameters(arguments)
        counts = ("horizon", "n_rollouts", "ppo_epochs", "n_minibatches", "width")
        require_numbers("model.", {name: arguments[name] for name in counts}, least=1)
        require_numbers("model.", {"gru_size": gru_size, "critic_warmup": critic_warmup}, least=0)
        if n_minibatches > n_rollouts:
            raise UserError(f"model.n_minibatches: found {n_minibatches}, expected at most n_rollouts = {n_rollouts}")
        fractions = {"discount": discount, "gae_lambda": gae_lambda, "final_lr_fraction": final_lr_fraction}
        require_numbers("model.", fractions, least=0, most=1)
        require_numbers("model.", {"ema_decay": ema_decay}, least=0, below=1)
        positive = ("lr", "clip_epsilon", "actor_max_grad_norm", "critic_max_grad_norm")
        require_numbers("model.", {name: arguments[name] for name in positive}, above=0)
        weights = {"value_coefficient": value_coefficient, "entropy_coefficient": entropy_coefficient}
        require_numbers("model.", weights, least=0)
        require_numbers("model.", {"critic_lr": critic_lr, "target_kl": target_kl}, above=0, optional=True)
        require_choice("model.time_limit", time_limit, TIME_LIMITS)
        self.horizon = horizon
        self.make_networks()
        self.register_buffer("steps_taken", torch.tensor(0, dtype=torch.long))
        self._rollout: Rollout | None = None
        self._beside = CriticBeside(PPOModule)
        self.advantage_scale = torch.tensor(1.0)  # standard deviation of the iteration's advantages
        self.unfinished: Start | None = None  # where the rollouts of the last iteration continue

    # --- the source of rollouts ------------------------------------------------------------------------------------
    def make_rollout(self, rows: int, generator: torch.Generator) -> Rollout:
        """Collects ``rows`` rollouts with the current policies. ``rows`` is this process's part of ``n_rollouts``."""
        raise NotImplementedError

    def value_range(self) -> tuple[Tensor, Tensor] | None:
        """Returns lower and upper bounds of values, or None if unknown."""
        return None

    def stop_value(self) -> Tensor | None:
        """Returns the value that follows a stopped rollout; None bootstraps from the next state."""
        return None

    def with_logged_steps(self, rollout: Rollout, generator: torch.Generator) -> Rollout:
        """Returns the rollouts of an iteration, with steps of a log beside them if the team imitates one."""
        return rollout

    def after_iteration(self, rollout: Rollout) -> None:
        """Is called at the end of an iteration."""

    def process_state(self) -> dict[str, Any]:
        """Returns where this process's rollouts continue."""
        if self.unfinished is None:
            return {}
        now, hidden_state = self.unfinished.now, self.unfinished.hidden_state
        return {"unfinished": [now.state, now.previous_action, now.keep, hidden_state]}

    def restore_process_state(self, state: dict[str, Any]) -> None:
        if "unfinished" in state:
            *now, hidden_state = state["unfinished"]
            self.unfinished = Start(Sequence(*now), hidden_state).to(self.device)

    def require_trainer(self, trainer: pl.Trainer, fitting: bool) -> None:
        """Checks the trainer's settings in addition to those that every module checks.

        Raises:
            UserError: the trainer clips gradients itself, or a process has fewer rollouts than minibatches.
        """
        super().require_trainer(trainer, fitting)
        if not fitting:
            return
        require_no_trainer_clipping(
            trainer, "actors and critic are", "model.actor_max_grad_norm and model.critic_max_grad_norm"
        )
        fewest = self.hparams["n_rollouts"] // trainer.world_size
        if self.hparams["n_minibatches"] > fewest:
            raise UserError(
                f"model.n_minibatches: found {self.hparams['n_minibatches']}, expected at most the {fewest} rollouts of"
                f" each of {trainer.world_size} processes (model.n_rollouts counts all processes together)"
            )

    def use_cores(self, cores: int) -> None:
        """Lets two processes train actors and critic if ``cores`` is more than 1. Results are the same."""
        self._beside.processes = cores

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self._beside.cancel(self)

    # --- one iteration ---------------------------------------------------------------------------------------------
    def on_train_epoch_start(self) -> None:
        key = (torch.initial_seed(), self.current_epoch, self.global_rank)
        rows = count_on_rank(self.hparams["n_rollouts"], self.global_rank, self.trainer.world_size)
        # In the precision of the updates, so that the first probability ratios are 1.
        with self.trainer.precision_plugin.forward_context():
            rollout = self.make_rollout(rows, keyed_generator(self.device, *key, 2))
            rollout = self.with_advantages(rollout)
            self.unfinished = rollout.end
            rollout = self.with_logged_steps(rollout, keyed_generator(self.device, *key, 5))
            self._rollout = replace(rollout, next_hidden_state=None)
        self.steps_taken += gather_tensor(rollout.valid.sum()).sum()
        self._beside.begin(self)

    @torch.no_grad()
    def with_advantages(self, rollout: Rollout) -> Rollout:
        """Adds normalised advantages and value targets, and updates the value statistics with the targets.

        Adds the critic's hidden states to ``next_hidden_state``. As in MAPPO, updates start from the hidden states of
        the data collection, which lag the weights. Rollouts that continue keep them from iteration to iteration, as an
        episode does, so that the policies learn with the hidden states that they meet later in an episode.
        """
        hidden_state = None if rollout.hidden_state is None else rollout.hidden_state[self.spec.n_agents :]
        after = self.critic.hidden_states(rollout.sequence, hidden_state)
        value = self.critic.scale.inverse(self.critic.value(rollout.state, after))
        if after is not None and rollout.next_hidden_state is not None:
            rollout = replace(rollout, next_hidden_state=torch.cat([rollout.next_hidden_state, after[:, -2]]))
        if (limits := self.value_range()) is not None:
            value = value.clamp(*limits)
        ends = self.hparams["time_limit"] == END
        advantage, target = generalized_advantage(
            rollout.reward,
            value,
            rollout.terminated | rollout.truncated if ends else rollout.terminated,
            rollout.truncated,
            rollout.stopped,
            rollout.valid,
            self.hparams["discount"],
            self.hparams["gae_lambda"],
            self.stop_value(),
        )
        if limits is not None:
            target = target.clamp(*limits)
        mean, square, _ = global_moments(target, rollout.valid)
        self.critic.scale.update(mean, square)
        explained = explained_variance(value[:-1], target, rollout.valid)
        self.record({"value/explained_variance": explained, "value/mean": mean})
        _, self.advantage_scale = global_mean_and_std(advantage, rollout.valid)
        return replace(rollout, advantage=normalize(advantage, rollout.valid), target=target)

    def train_dataloader(self) -> DataLoader:
        return self.stream(self.hparams["ppo_epochs"] * self.hparams["n_minibatches"], self._minibatches)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx + 1 == self.trainer.num_training_batches:
            self._beside.end(self)
        super().on_train_batch_end(outputs, batch, batch_idx)

    def _minibatches(self) -> Iterator[Rollout]:
        if self._rollout is None:  # restored from a checkpoint after the start of the epoch
            raise UserError(
                "--ckpt_path: found a checkpoint from the middle of an iteration, expected one from its end"
            )
        key = (torch.initial_seed(), self.current_epoch, self.global_rank)
        yield from self.minibatches(self._rollout, keyed_generator("cpu", *key, 3))

    def minibatches(self, rollout: Rollout, random: torch.Generator) -> Iterator[Rollout]:
        """Yields ``ppo_epochs`` random partitions of the rollouts into minibatches of whole rollouts.

        The weights that balance minibatches of different processes are computed for all minibatches at once. Every
        process must call this. ``random`` is a generator on the CPU.
        """
        count, size = min(self.hparams["n_minibatches"], rollout.n_rows), rollout.n_rows
        orders = [torch.randperm(size, generator=random) for _ in range(self.hparams["ppo_epochs"])]
        parts = [part.to(rollout.state.device) for order in orders for part in order.tensor_split(count)]
        weights: Iterable[Tensor | None] = [None] * len(parts)
        if is_distributed():
            valid = rollout.valid.sum(0)
            weights = process_weights(torch.stack([valid[part].sum() for part in parts])).unbind()
        for part, weight in zip(parts, weights, strict=True):
            yield replace(rollout.rows(part), weight=weight)

    @torch.no_grad()
    def start_from(self, sequence: Sequence) -> Start:
        """Returns the last time step of a sequence with the hidden states to which the steps before it lead.

        Args:
            sequence: H + 1 time steps: the burn-in and the current time step.
        """
        past, now = sequence.span(0, -1), sequence.span(-1, None)
        if not past.state.shape[0]:
            return Start(now)
        return Start(now, torch.cat([states[:, -1] for states in self._hidden_states(past, None).values()]))

    def training_step(self, batch: Rollout, _: int) -> Tensor:
        """Computes one loss for actors and critic, which share no weights, so that one backward pass is enough."""
        now = batch.sequence.span(0, -1)
        hidden_states = self._hidden_states(now, batch.hidden_state)
        losses = []
        if ACTOR in self.trained:
            losses.append(self._actor_loss(batch, self.actor.distribution(hidden_states[ACTOR], now.state)))
        if CRITIC in self.trained:
            losses.append(self._critic_loss(batch, self.critic.value(now.state, hidden_states.get(CRITIC))))
        return torch.stack(losses).sum()

    def _actor_loss(self, batch: Rollout, policy: TeamDistribution) -> Tensor:
        log_prob = policy.log_prob(batch.action)
        assert batch.advantage is not None
        objective = clipped_objective(log_prob, batch.log_prob, batch.advantage, self.hparams["clip_epsilon"])
        means = masked_means([objective, policy.entropy], batch.valid)
        if batch.logged is not None:
            logged = (objective.mean(-1) * batch.logged).sum() / batch.valid.sum().clamp(min=1)
            means = means + torch.stack([logged, torch.zeros_like(logged)])
        mean_objective, entropy = reweight(means, batch.weight).unbind()
        with torch.no_grad():
            kl = kl_estimate(log_prob, batch.log_prob)
            outside = (log_prob - batch.log_prob).abs() > self.hparams["clip_epsilon"]
            means = masked_means([kl, outside.to(kl.dtype)], batch.valid)
            kl, clipped = reweight(means, batch.weight).unbind()
            there = self._present_fraction(batch)
            metrics = {
                "loss/policy": -mean_objective,
                "policy/entropy": entropy / there,
                "policy/kl": kl / there,
                "policy/clip_fraction": clipped,
            }
            self.record(metrics)
        return -mean_objective - self.entropy_weight * entropy

    def _present_fraction(self, batch: Rollout) -> Tensor | float:
        """Mean fraction of the agents that are there, by which means over all agents become means over those."""
        present = self.actor.present(batch.state[:-1])
        return 1.0 if present is None else masked_mean(present.squeeze(-1), batch.valid).clamp(min=1e-6)

    def _critic_loss(self, batch: Rollout, value: Tensor) -> Tensor:
        assert batch.target is not None
        error = F.huber_loss(value, self.critic.scale(batch.target), reduction="none")
        loss = reweight(masked_means([error], batch.valid), batch.weight)[0]
        self.record({"loss/value": loss.detach()})
        return self.hparams["value_coefficient"] * loss

    def _hidden_states(self, sequence: Sequence, hidden_state: Tensor | None) -> dict[str, Tensor]:
        """Returns the hidden states of the networks that are trained and have a trunk, each ``(A, T, B, H)``.

        Actors and critic run as one batched computation.

        Args:
            sequence: T time steps.
            hidden_state: those of the actors, then of the critic before the first step; None for zeros.
        """
        networks = {name: network for name in self.trained if (network := self.networks[name]).trunk is not None}
        if not networks:
            return {}
        if hidden_state is not None and len(networks) == 1 and self.critic.trunk is not None:
            hidden_state = hidden_state.chunk(2)[0 if ACTOR in networks else 1]
        inputs = [network.inputs(sequence.state, sequence.previous_action) for network in networks.values()]
        trunks = [network.trunk for network in networks.values() if network.trunk is not None]
        return dict(zip(networks, run_trunks(trunks, inputs, sequence.keep, hidden_state), strict=True))

    def on_train_epoch_end(self) -> None:
        """Logs the iteration's means and adapts entropy bonus and learning rates."""
        rollout = self._rollout
        assert rollout is not None
        means = self.pop_means()
        means = mean_over_processes(means)
        means["train/reward"] = global_moments(rollout.reward, rollout.valid)[0].float()
        # A gradient scaler (16-mixed) may try too large a scale; it then skips the step.
        self.require_finite({k: value for k, value in means.items() if self.fused or not k.startswith("gradient/")})
        self.adapt_coefficients(means)
        means["train/steps"] = self.steps_taken.float()
        means["policy/entropy_weight"] = self.entropy_weight.clone()
        means["policy/lr"] = torch.tensor(self.trainer.optimizers[0].param_groups[0]["lr"])
        self.log_synced(means)
        self.after_iteration(rollout)
