"""Trains the critic in a copy of the process, while this one trains the actors."""

from __future__ import annotations

import contextlib
import time
from functools import partial
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from momalit.core.distributed import is_distributed
from momalit.policies.actor_critic import ACTOR, CRITIC, ActorCriticModule
from momalit.training.cpu import float32_by_onednn
from momalit.training.epoch_means import Means
from momalit.training.forks import Fork, can_fork

WORTHWHILE_SECONDS = 0.1  # of an iteration's gradient steps; a copy of the process takes some 20 ms
# What sees gradients between the steps would miss the critic's.
_GRADIENT_HOOKS = ("on_before_backward", "on_after_backward", "on_before_optimizer_step", "on_before_zero_grad")
# A subclass with a gradient step of its own may train weights or losses that the two networks share.
_STEP = ("training_step", "backward", "configure_gradient_clipping", "optimizer_step", "optimizer_zero_grad")
_PATIENCE = 30.0  # seconds, in addition to many times those that the gradient steps take


class _Trained(NamedTuple):
    weights: list[Tensor]
    optimizer: list[dict[str, Any]]
    means: Means


class CriticBeside:
    """Divides the gradient steps of an iteration between two processes: this one trains the actors, a copy the critic.

    Within an iteration neither needs the other, since advantages and targets are computed before. They share no
    weights, so the results are those of one process to the last bit. A copy lives for one iteration. If it is killed
    or does not answer, this process takes its gradient steps. The first iteration is not divided, and tells whether it
    is worthwhile.

    Args:
        step_of: the class whose gradient step can be divided; subclasses that change it train in one process.
    """

    def __init__(self, step_of: type) -> None:
        self.step_of, self.processes = step_of, 1
        self._seconds = self._began = 0.0
        self._fork: Fork[_Trained] | None = None
        self._rates: list[float] = []

    def begin(self, module: ActorCriticModule) -> None:
        """Starts the copy, if there is a core for it; ``module`` then trains its actors only."""
        self._began = time.monotonic()
        if self.processes > 1 and self._seconds >= WORTHWHILE_SECONDS and _divisible(module, self.step_of):
            self._rates = [group["lr"] for group in module.trainer.optimizers[0].param_groups]
            with contextlib.suppress(OSError):
                self._fork = Fork(partial(_train_critic, module, self._rates))
                module.trained = (ACTOR,)

    def cancel(self, module: ActorCriticModule) -> None:
        """Forgets an iteration that an exception has ended."""
        if self._fork is not None:
            self._fork.end()
        self._fork, module.trained = None, (ACTOR, CRITIC)

    def end(self, module: ActorCriticModule) -> None:
        """Gives ``module`` the critic that the copy has trained."""
        if self._fork is None:
            self._seconds = time.monotonic() - self._began
            return
        fork, self._fork = self._fork, None
        try:
            trained = fork.result(_PATIENCE + 20 * self._seconds) or _train_critic(module, self._rates)
        finally:
            fork.end()
            module.trained = (ACTOR, CRITIC)
        optimizer = module.trainer.optimizers[0]
        with torch.no_grad():
            for parameter, weight, state in zip(
                module.critic.parameters(), trained.weights, trained.optimizer, strict=True
            ):
                parameter.copy_(weight)
                optimizer.state[parameter] = state
        module.merge_means(trained.means)


def _divisible(module: ActorCriticModule, step_of: type) -> bool:
    """Whether division changes no bit.

    Each gradient step has one batch, all of an iteration are taken, nothing looks at the gradients, and the actors'
    products have the same bits whether they are batched with those of the critic or not.
    """
    trainer = module.trainer
    batched = float32_by_onednn() and str(trainer.precision).startswith("32")
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    watchers = [(module, pl.LightningModule), *((callback, pl.Callback) for callback in callbacks)]
    watched = any(is_overridden(hook, watcher, parent) for hook in _GRADIENT_HOOKS for watcher, parent in watchers)
    known = all(getattr(type(module), name) is getattr(step_of, name) for name in _STEP)
    one_by_one = trainer.accumulate_grad_batches == 1 and trainer.max_steps == -1
    return known and one_by_one and not watched and not batched and not is_distributed() and can_fork()


def _train_critic(module: ActorCriticModule, rates: list[float]) -> _Trained:
    """Takes the critic's gradient steps of the iteration as Lightning does, with the learning rates at its start."""
    trainer, before = module.trainer, module.swap_means(Means())
    optimizer = trainer.optimizers[0]
    later = [group["lr"] for group in optimizer.param_groups]  # those of the next iteration, if it has ended here
    _set_rates(optimizer, rates)
    module.trained = (CRITIC,)
    for index, batch in zip(range(int(trainer.num_training_batches)), module.train_dataloader(), strict=False):
        with trainer.precision_plugin.train_step_context():
            loss = module.training_step(batch.to(module.device), index)
        optimizer.zero_grad()
        assert isinstance(loss, Tensor)
        loss.backward()
        module.configure_gradient_clipping(optimizer)
        optimizer.step()
    _set_rates(optimizer, later)
    parameters = list(module.critic.parameters())
    return _Trained(
        [parameter.detach() for parameter in parameters],
        [optimizer.state[parameter] for parameter in parameters],
        module.swap_means(before),
    )


def _set_rates(optimizer: torch.optim.Optimizer, rates: list[float]) -> None:
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
