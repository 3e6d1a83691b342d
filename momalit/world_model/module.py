"""WorldModelModule: trains the probabilistic ensemble."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.utils.data import DataLoader

from momalit.core.distributed import gather_tensor
from momalit.core.errors import UserError
from momalit.core.records import Transitions
from momalit.core.team import TeamSpec
from momalit.core.trajectories import Trajectories
from momalit.nn.ensemble import EnsembleNetwork
from momalit.training.batches import count_batches, keyed_generator, process_chunks
from momalit.training.hyperparameters import plain_arguments
from momalit.training.resumable import ResumableModule
from momalit.training.trainer_checks import require_own_clipping
from momalit.world_model.diagnostics import world_model_metrics
from momalit.world_model.dynamics import TERMINATIONS, ModelSpace, WorldModel


class WorldModelModule(ResumableModule):
    """Trains M members side by side, each on its own shuffling of the data, and keeps the best of each.

    Loss per member: Gaussian negative log-likelihood of the standardised ``[s' - s ; r]``, averaged over the dimensions
    that vary, plus the cross-entropy of termination. Each dimension's likelihood is weighted by its predicted variance
    to the power β, held constant (Seitzer et al., 2022): unweighted, a network explains rare outcomes as noise and
    hardly learns them any more. A member whose held-out error stops improving is frozen; training
    ends when all are. ``n_elites`` members with the smallest held-out error of the means make the world model.

    Args:
        spec: the team (the command line links it to the data).
        n_members: networks trained.
        n_elites: networks kept.
        hidden_sizes: widths of the hidden layers.
        termination: ``learned``, or ``never`` for tasks that only a time limit ends.
        lr: learning rate at the start, annealed to zero over the epochs by a half cosine.
        weight_decay: decoupled weight decay.
        batch_size: transitions per member and step, in all processes together.
        patience: epochs without improvement after which a member is frozen.
        min_improvement: relative decrease of the held-out error that counts as improvement.
        max_grad_norm: largest gradient norm of a member, which a few steep transitions would else throw back to where
            it began, or further, at a high learning rate.
        beta: that power, from 0 (the plain likelihood) to 1 (means learn as from squared errors).
        discount: γ for the worst return in the data, which pessimism needs.
        compiled: compile the networks with ``torch.compile``, which takes a while and a C++ compiler on a CPU.
    """

    def __init__(
        self,
        spec: TeamSpec | Mapping[str, Any],
        n_members: int = 7,
        n_elites: int = 5,
        hidden_sizes: Sequence[int] = (200, 200),
        termination: str = "learned",
        lr: float = 1e-3,
        weight_decay: float = 1e-5,
        batch_size: int = 256,
        patience: int = 5,
        min_improvement: float = 0.01,
        max_grad_norm: float = 1.0,
        beta: float = 0.5,
        discount: float = 0.99,
        compiled: bool = False,
    ) -> None:
        arguments = plain_arguments(locals())
        super().__init__()
        self.spec = spec if isinstance(spec, TeamSpec) else TeamSpec.from_dict(spec)
        spec = self.spec
        if not 1 <= n_elites <= n_members:
            raise UserError(f"world_model.n_elites: found {n_elites}, expected 1 to n_members = {n_members}")
        if termination not in TERMINATIONS:
            raise UserError(
                f"world_model.termination: found {termination!r}, expected one of {', '.join(TERMINATIONS)}"
            )
        if not 0 <= beta <= 1:
            raise UserError(f"world_model.beta: found {beta}, expected a number from 0 to 1")
        if max_grad_norm <= 0:
            raise UserError(f"world_model.max_grad_norm: found {max_grad_norm}, expected a number above 0")
        for name, number in (("batch_size", batch_size), ("patience", patience)):
            if number < 1:
                raise UserError(f"world_model.{name}: found {number}, expected at least 1")
        self.save_hyperparameters({"spec": spec.to_dict(), **arguments})
        n_in, n_out = spec.state_size + spec.joint_action_size, spec.state_size + 1
        self.space = ModelSpace(spec)
        self.network = EnsembleNetwork(n_members, n_in, hidden_sizes, n_out)
        self.best_network = EnsembleNetwork(n_members, n_in, hidden_sizes, n_out).requires_grad_(False)
        self.best_network.load_state_dict(self.network.state_dict())
        self.best_error: Tensor
        self.epochs_without_improvement: Tensor
        self.register_buffer("best_error", torch.full((n_members,), torch.inf))
        self.register_buffer("epochs_without_improvement", torch.zeros(n_members, dtype=torch.long))
        self._epoch_loss: list[Tensor] = []
        self._held_out: list[Tensor] = []

    # --- data ------------------------------------------------------------------------------------------------------
    def setup(self, stage: str) -> None:
        """Takes the statistics of the training split.

        Raises:
            UserError: the data belong to another team, or hold nothing out to choose members by.
        """
        super().setup(stage)
        self.spec.require_same(self._data.spec, "the configured model", f"dataset {self._data.dataset}")
        if stage == "fit":
            if not len(self._data.validation):
                raise UserError("data.validation_fraction: holds out 0 trajectories, a world model needs at least one")
            self.space.fit(self._data.train.to("cpu"), self.hparams["discount"])

    def require_trainer(self, trainer: pl.Trainer, fitting: bool) -> None:
        """Refuses, beside what no module can be trained with, clipping that would have no effect."""
        super().require_trainer(trainer, fitting)
        if fitting:
            require_own_clipping(trainer, "members are", "model.max_grad_norm")

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self.hparams["compiled"]:
            self.network.compile()

    @property
    def _data(self) -> Any:
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def train_dataloader(self) -> DataLoader:
        """Batches ``(M, B)``: every member goes through the training split in its own order."""
        number, _ = count_batches(len(self._data.train), self.hparams["batch_size"], self.trainer.world_size)
        return self.stream(number, self._training_batches)

    def val_dataloader(self) -> DataLoader:
        """Every process looks at its share."""
        return self._in_order(self._data.validation, self.trainer.world_size)

    def test_dataloader(self) -> DataLoader:
        return self._in_order(self._data.test)

    def predict_dataloader(self) -> DataLoader:
        return self._in_order(self._data.test)

    def _training_batches(self) -> Iterator[Transitions]:
        data = self._data.train
        random = keyed_generator("cpu", torch.initial_seed(), self.current_epoch, 1)
        # The same order in every process, which takes its share of each batch. Short numbers: the log may be large.
        order = torch.empty(self.hparams["n_members"], len(data), dtype=torch.int32)
        for member in order:
            torch.randperm(len(data), generator=random, out=member)
        for parts in process_chunks(order, self.hparams["batch_size"], self.trainer.world_size):
            yield data.transitions(parts[..., self.global_rank, :].to(data.reward.device, torch.long))

    def _in_order(self, data: Trajectories, n: int = 1, size: int = 4096) -> DataLoader:
        """All transitions, or this process's share where ``n`` share them; in as many batches everywhere."""
        number = -(-len(data) // (n * size))
        share = torch.arange(len(data)).tensor_split(n)[self.global_rank if n > 1 else 0]
        return self.stream(number, lambda: (data.transitions(index) for index in share.tensor_split(max(number, 1))))

    # --- training --------------------------------------------------------------------------------------------------
    def training_step(self, batch: Transitions, _: int) -> Tensor:
        """The loss of all members that still train; batch tensors are ``(M, B, ...)``."""
        x = self.space.input(self.space.raw_input(batch.state, batch.action))
        y = self.space.target(self.space.raw_target(batch))
        loss = self.losses(x, y, batch.terminated)
        self._epoch_loss.append(loss.detach())
        return (loss * self.training_members).sum()

    def losses(self, x: Tensor, y: Tensor, terminated: Tensor) -> Tensor:
        """Loss of every member ``(M,)`` for standardised inputs ``(M, B, n_in)`` and targets ``(M, B, D)``."""
        prediction = self.network(x)
        varies = self.space.target.varies
        error = (prediction.mean - y) ** 2 * torch.exp(-prediction.log_variance) + prediction.log_variance
        trust = torch.exp(self.hparams["beta"] * prediction.log_variance.detach())
        likelihood = 0.5 * (error * trust * varies).sum(-1).mean(-1) / varies.sum().clamp(min=1)
        loss = likelihood + 0.01 * self.network.range_penalty()
        if self.hparams["termination"] == "learned":
            ends = F.binary_cross_entropy_with_logits(prediction.termination, terminated.to(x.dtype), reduction="none")
            loss = loss + ends.mean(-1)
        return loss

    @property
    def training_members(self) -> Tensor:
        """Which members have not been frozen yet, ``(M,)`` bool."""
        return self.epochs_without_improvement < self.hparams["patience"]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW, annealed by a half cosine over ``max_epochs``."""
        optimizer = torch.optim.AdamW(
            self.network.parameters(), self.hparams["lr"], weight_decay=self.hparams["weight_decay"], fused=self.fused
        )
        epochs = self.trainer.max_epochs
        if not epochs or epochs < 1:
            return optimizer
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs, eta_min=self.hparams["lr"] * 1e-2)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "epoch"}}

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Clips every member apart: what one meets is nothing to the others."""
        gradients = [parameter.grad for parameter in self.network.parameters() if parameter.grad is not None]
        norms = torch.stack([torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in gradients])
        share = (self.hparams["max_grad_norm"] / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(share.view(-1, *[1] * (gradient.dim() - 1)))

    def on_train_epoch_end(self) -> None:
        loss = gather_tensor(torch.stack(self._epoch_loss).mean(0)).mean(0)
        self._epoch_loss.clear()
        if not bool(torch.isfinite(loss).all()):
            raise FloatingPointError(f"world model: loss per member {loss.tolist()} in epoch {self.current_epoch}")
        self.log_synced({"train/loss": loss.mean()})

    # --- held-out error --------------------------------------------------------------------------------------------
    def validation_step(self, batch: Transitions, _: int) -> None:
        x = self.space.input(self.space.raw_input(batch.state, batch.action))
        y = self.space.target(self.space.raw_target(batch))
        mean = self.network(x.expand(self.hparams["n_members"], *x.shape)).mean
        self._held_out.append((((mean - y) * self.space.target.varies) ** 2).mean(-1).sum(-1))

    def on_validation_epoch_end(self) -> None:
        """Keeps the members that improved; stops when none trains any more."""
        error = gather_tensor(torch.stack(self._held_out).sum(0)).sum(0) / len(self._data.validation)
        self._held_out.clear()
        if self.trainer.sanity_checking:
            return
        if self.trainer.state.fn == "fit":
            improved = (error < self.best_error * (1 - self.hparams["min_improvement"])) & self.training_members
            # The first weights of a member are kept whatever their error, so that nothing undefined is ever used.
            self.best_network.copy_members(self.network, improved)
            self.best_error.copy_(torch.where(improved, error, self.best_error))
            self.epochs_without_improvement.copy_(torch.where(improved, 0, self.epochs_without_improvement + 1))
            self.trainer.should_stop = self.trainer.should_stop or not bool(self.training_members.any())
        best = self.best_error[self.elites]
        training = self.training_members.sum().float()
        self.log_synced({"val/error": best.mean()}, prog_bar=True)
        self.log_synced({"val/error_current": error.mean(), "val/members_training": training})

    @property
    def elites(self) -> Tensor:
        """Numbers of the members with the smallest held-out error, best first, ``(E,)``."""
        return self.best_error.argsort(stable=True)[: self.hparams["n_elites"]]

    # --- use -------------------------------------------------------------------------------------------------------
    def world_model(self) -> WorldModel:
        """The elites, frozen, with their statistics.

        Raises:
            UserError: training ended before its first validation, so that nothing has been kept.
        """
        if not bool(torch.isfinite(self.best_error).any()):
            raise UserError("world model: no member was ever validated, expected at least one epoch with validation")
        chosen = self.hparams
        model = WorldModel(self.spec, chosen["n_elites"], chosen["hidden_sizes"], chosen["termination"]).to(self.device)
        model.space.load_state_dict(self.space.state_dict())
        model.network.load_state_dict(self.best_network.subset(self.elites).state_dict())
        return model

    def on_test_start(self) -> None:
        self._tested = self.world_model()

    def test_step(self, batch: Transitions, index: int) -> None:
        """The report is made from whole trajectories; see ``on_test_epoch_end``."""

    def on_test_epoch_end(self) -> None:
        """Logs held-out errors, open-loop errors and how well uncertainty ranks errors."""
        self.log_synced(world_model_metrics(self._tested, self._data.test.to(self.device)))

    def on_predict_start(self) -> None:
        self._tested = self.world_model()

    def predict_step(self, batch: Transitions, _: int) -> dict[str, Tensor]:
        """Predicted successor and reward (mean over the elites) for the test split, in the units of the task."""
        prediction = self._tested(batch.state, batch.action)
        outcome = self._tested.space.target.inverse(prediction.mean.mean(0))
        return {"next_state": batch.state + outcome[:, :-1], "reward": outcome[:, -1]}
