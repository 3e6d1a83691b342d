"""WorldModelModule: trains the probabilistic dynamics ensemble."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.utils.data import DataLoader

from momalit.core.checks import require_choice, require_numbers
from momalit.core.distributed import gather_tensor
from momalit.core.errors import UserError
from momalit.core.records import Transitions
from momalit.core.symmetries import Symmetries
from momalit.core.team import TeamSpec
from momalit.core.trajectories import Trajectories
from momalit.nn.ensemble import EnsembleNetwork
from momalit.training.batches import count_batches
from momalit.training.hyperparameters import plain_arguments
from momalit.training.muon import Muon
from momalit.training.resumable import ResumableModule
from momalit.training.trainer_checks import require_no_trainer_clipping
from momalit.world_model.batches import member_batches, ordered_batches
from momalit.world_model.diagnostics import world_model_metrics
from momalit.world_model.dynamics import TERMINATIONS, ModelSpace, WorldModel
from momalit.world_model.member_share import MemberShare, parameter_groups

MUON = "muon"
OPTIMIZERS = ("adamw", MUON)


class WorldModelModule(ResumableModule):
    """Trains M members in parallel, each on its own shuffling of the data, and saves the best weights of each.

    The loss of a member is the Gaussian negative log-likelihood of the standardised ``[s' - s ; r]``, plus the
    cross-entropy of termination. The dimensions of the state that vary have equal parts of the likelihood, and so has
    the reward, or a share of its own: as one dimension of many, a reward that is hard to learn would be wrong in ways
    that a team exploits. The likelihood of each dimension is weighted by its predicted
    variance to the power β, without gradient through the weight (Seitzer et al., 2022). Without this weight, a network
    explains rare outcomes as noise and hardly learns them. A member is frozen when its validation error, the squared
    error of the mean with the same shares, stops improving; training ends when all members are frozen. The ``n_elites``
    members with the smallest validation error form the world model.

    Args:
        spec: the team (the command line links it to the data).
        n_members: M, number of trained networks.
        n_elites: number of networks in the world model.
        width: features of the residual blocks.
        n_blocks: number of residual blocks.
        termination: ``learned``, or ``never`` for tasks that only a time limit ends. ``learned`` on data without a
            terminated step is the same as ``never``.
        optimizer: ``adamw``, or ``muon``, which learns more per step and takes longer steps; see
            ``momalit.training.muon``.
        lr: initial learning rate; cosine annealing reduces it to 1 % over the epochs.
        weight_decay: decoupled weight decay.
        batch_size: transitions per member and optimiser step, summed over processes.
        patience: epochs without improvement after which a member is frozen.
        min_improvement: relative decrease of the validation error that counts as an improvement.
        max_grad_norm: maximum gradient norm of each member. Without clipping, a few transitions with large gradients
            can undo a member's training at a high learning rate.
        beta: β, power of the predicted variance that weights the likelihood, from 0 (no weights) to 1 (the mean is
            trained as with squared errors).
        reward_share: share of the reward in the likelihood and in the validation error, above 0 and below 1; None for
            the same as each dimension of the state.
        prior_scale: scale of a fixed random function that each member adds to its predicted means, in standard
            deviations of the targets. Members unlearn it where there are data, and differ elsewhere. 0 for none.
        discount: γ of the lowest return in the dataset, which pessimism needs.
        compiled: compile the networks with ``torch.compile``. This takes time and, on a CPU, needs a C++ compiler.
    """

    def __init__(
        self,
        spec: TeamSpec | Mapping[str, Any],
        n_members: int = 7,
        n_elites: int = 5,
        width: int = 256,
        n_blocks: int = 3,
        termination: str = "learned",
        optimizer: str = "adamw",
        lr: float = 1e-3,
        weight_decay: float = 1e-5,
        batch_size: int = 256,
        patience: int = 5,
        min_improvement: float = 0.01,
        max_grad_norm: float = 1.0,
        beta: float = 0.5,
        reward_share: float | None = None,
        prior_scale: float = 0.0,
        discount: float = 0.99,
        compiled: bool = False,
    ) -> None:
        arguments = plain_arguments(locals())
        super().__init__()
        self.spec = spec if isinstance(spec, TeamSpec) else TeamSpec.from_dict(spec)
        spec = self.spec
        require_numbers("world_model.", {"n_members": n_members, "n_elites": n_elites}, least=1)
        if not 1 <= n_elites <= n_members:
            raise UserError(f"world_model.n_elites: found {n_elites}, expected 1 to n_members = {n_members}")
        require_choice("world_model.termination", termination, TERMINATIONS)
        require_choice("world_model.optimizer", optimizer, OPTIMIZERS)
        require_numbers("world_model.", {"beta": beta, "discount": discount}, least=0, most=1)
        require_numbers("world_model.", {"reward_share": reward_share}, above=0, below=1, optional=True)
        require_numbers("world_model.", {"lr": lr, "max_grad_norm": max_grad_norm}, above=0)
        require_numbers("world_model.", {"weight_decay": weight_decay, "min_improvement": min_improvement}, least=0)
        require_numbers("world_model.", {"batch_size": batch_size, "patience": patience, "width": width}, least=1)
        require_numbers("world_model.", {"n_blocks": n_blocks, "prior_scale": prior_scale}, least=0)
        self.save_hyperparameters({"spec": spec.to_dict(), **arguments})
        n_in, n_out = spec.state_size + spec.joint_action_size, spec.state_size + 1
        self.space = ModelSpace(spec)
        self.network = EnsembleNetwork(n_members, n_in, width, n_blocks, n_out, prior_scale)
        self.best_network = EnsembleNetwork(n_members, n_in, width, n_blocks, n_out, prior_scale).requires_grad_(False)
        self.best_network.load_state_dict(self.network.state_dict())
        self.best_error: Tensor
        self.epochs_without_improvement: Tensor
        self.register_buffer("best_error", torch.full((n_members,), torch.inf))
        self.register_buffer("epochs_without_improvement", torch.zeros(n_members, dtype=torch.long))
        self._share: MemberShare | None = None
        self._epoch_loss: list[Tensor] = []
        self._validation_errors: list[Tensor] = []

    # --- data ------------------------------------------------------------------------------------------------------
    def setup(self, stage: str) -> None:
        """Computes the statistics of the training split.

        Raises:
            UserError: the dataset is of another team, or its validation split is empty.
        """
        super().setup(stage)
        dynamics = self._data.spec.dynamics()
        self.spec.dynamics().require_same(dynamics, "the configured model", f"dataset {self._data.dataset}")
        if stage == "fit":
            if not len(self._data.validation):
                raise UserError("data.validation_fraction: found 0 validation trajectories, expected at least 1")
            self.space.fit(self._data.train.to("cpu"), self.hparams["discount"])

    def require_trainer(self, trainer: pl.Trainer, fitting: bool) -> None:
        """Also rejects the trainer's gradient clipping, which would have no effect."""
        super().require_trainer(trainer, fitting)
        if fitting:
            require_no_trainer_clipping(trainer, "members are", "model.max_grad_norm")

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self.hparams["compiled"]:
            self.share.network.compile()

    @property
    def share(self) -> MemberShare:
        """The members that this process trains."""
        if self._share is None:
            self._share = MemberShare(self.network)
        return self._share

    @property
    def averages_gradients(self) -> bool:
        return not self.share.divided

    @property
    def _row_processes(self) -> int:
        """Number of processes over which each batch is divided."""
        return 1 if self.share.divided else self.trainer.world_size

    @property
    def _own_members(self) -> bool:
        """Whether this process validates the members that it trains, and no others."""
        return self.share.divided and self.trainer.state.fn == "fit"

    @property
    def symmetries(self) -> Symmetries | None:
        """Those through which batches are seen; None for none."""
        return getattr(self._data, "symmetries", None)

    @property
    def _data(self) -> Any:
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def train_dataloader(self) -> DataLoader:
        """Batches ``(M, B)``, in which every member iterates over the training split in its own order."""
        length, _ = count_batches(len(self._data.train), self.hparams["batch_size"], self._row_processes)
        return self.stream(length, self._training_batches)

    def val_dataloader(self) -> DataLoader:
        """Every process evaluates its own members, or all members on its share of the validation split."""
        return self._ordered_loader(self._data.validation, 1 if self._own_members else self.trainer.world_size)

    def test_dataloader(self) -> DataLoader:
        return self._ordered_loader(self._data.test)

    def predict_dataloader(self) -> DataLoader:
        return self._ordered_loader(self._data.test)

    def _training_batches(self) -> Iterator[Transitions]:
        # A generator: epoch and seed are those of the first batch, which a resumed run knows later than the iterator.
        members, size = self.hparams["n_members"], self.hparams["batch_size"]
        place = (torch.initial_seed(), self.current_epoch, self.global_rank, self._row_processes)
        yield from member_batches(self._data.train, members, self.share.members, size, *place, self.symmetries)

    def _ordered_loader(self, data: Trajectories, world_size: int = 1) -> DataLoader:
        """Loads this process's share of the transitions in order; all processes have the same number of batches."""
        length, _ = ordered_batches(data, self.global_rank, world_size)
        return self.stream(length, lambda: ordered_batches(data, self.global_rank, world_size)[1])

    # --- training --------------------------------------------------------------------------------------------------
    def training_step(self, batch: Transitions, _: int) -> Tensor:
        """The summed loss of this process's members that are not frozen; batch tensors are ``(M, B, ...)``."""
        x = self.space.input(self.space.raw_input(batch.state, batch.action))
        y = self.space.target(self.space.raw_target(batch))
        loss = self.losses(x, y, batch.terminated)
        self._epoch_loss.append(loss.detach())
        return (loss * self.training_members[self.share.members]).sum()

    def losses(self, x: Tensor, y: Tensor, terminated: Tensor) -> Tensor:
        """The loss of this process's members ``(M,)`` for standardised inputs ``(M, B, n_in)`` and targets."""
        network = self.share.network
        prediction = network(x)
        error = (prediction.mean - y) ** 2 * torch.exp(-prediction.log_variance) + prediction.log_variance
        weight = torch.exp(self.hparams["beta"] * prediction.log_variance.detach())
        likelihood = 0.5 * (error * weight * self.weights).sum(-1).mean(-1)
        loss = likelihood + 0.01 * network.range_penalty()
        if self.hparams["termination"] == "learned":
            logit, target = prediction.termination, terminated.to(x.dtype)
            loss = loss + F.binary_cross_entropy_with_logits(logit, target, reduction="none").mean(-1)
        return loss

    @property
    def weights(self) -> Tensor:
        """Weights of the targets in likelihood and validation error, ``(S + 1,)``."""
        return self.space.target_weights(self.hparams["reward_share"])

    @property
    def training_members(self) -> Tensor:
        """Mask of the members that are not frozen, ``(M,)`` bool."""
        return self.epochs_without_improvement < self.hparams["patience"]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW or Muon, with cosine annealing over ``max_epochs``."""
        self._share = MemberShare(self.network)  # now that a checkpoint's weights are loaded
        optimizer = self._optimizer(self.share.network)
        epochs = self.trainer.max_epochs
        if not epochs or epochs < 1:
            return optimizer
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs, eta_min=self.hparams["lr"] * 1e-2)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "epoch"}}

    def _optimizer(self, network: EnsembleNetwork) -> torch.optim.Optimizer:
        groups = parameter_groups(network, self._has_muon)
        settings: dict[str, Any] = {"weight_decay": self.hparams["weight_decay"], "fused": self.fused}
        if not self._has_muon:
            return torch.optim.AdamW(groups, self.hparams["lr"], **settings)
        low = str(self.trainer.precision).startswith("bf16")
        return Muon(groups, self.hparams["lr"], products=torch.bfloat16 if low else network.highest.dtype, **settings)

    @property
    def _has_muon(self) -> bool:
        return bool(self.hparams["optimizer"] == MUON)

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Clips the gradient of every member separately, because the members are independent networks."""
        gradients = [parameter.grad for parameter in self.share.network.parameters() if parameter.grad is not None]
        # One row per member: sums over rows have the same order for any number of members, sums over columns do not.
        norms = torch.stack([torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in gradients], 1)
        factor = (self.hparams["max_grad_norm"] / (torch.linalg.vector_norm(norms, dim=1) + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(factor.view(-1, *[1] * (gradient.dim() - 1)))

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.trainer.is_last_batch:  # before validation, and before the epoch's checkpoint
            self.share.collect()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the optimiser's state of the other processes' members."""
        super().on_save_checkpoint(checkpoint)
        if self.share.divided and "optimizer_states" in checkpoint:
            checkpoint["optimizer_states"] = [
                self.share.whole_optimizer_state(s) for s in checkpoint["optimizer_states"]
            ]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes this process's members from the optimiser's state.

        Raises:
            UserError: training of the checkpoint was interrupted in a version with another optimiser.
        """
        super().on_load_checkpoint(checkpoint)
        states = checkpoint.get("optimizer_states", [])
        fitting = self._trainer is not None and self.trainer.state.fn == "fit"
        n_groups = len(parameter_groups(self.network, self._has_muon))
        if fitting and any(len(state["param_groups"]) != n_groups for state in states):
            raise UserError(
                "world model: found the half-trained checkpoint of an older version, whose optimiser differs; delete"
                " its folder to train it again"
            )
        if self.share.divided and "optimizer_states" in checkpoint:
            checkpoint["optimizer_states"] = [self.share.own_optimizer_state(s) for s in checkpoint["optimizer_states"]]

    def on_train_epoch_end(self) -> None:
        loss = self.share.gather(torch.stack(self._epoch_loss, 1).mean(1))
        if not self.share.divided:
            loss = gather_tensor(loss).mean(0)
        self._epoch_loss.clear()
        self.require_finite({"loss": loss})
        self.log_synced({"train/loss": loss.mean()})

    # --- validation ------------------------------------------------------------------------------------------------
    def validation_step(self, batch: Transitions, _: int) -> None:
        x = self.space.input(self.space.raw_input(batch.state, batch.action))
        y = self.space.target(self.space.raw_target(batch))
        network, members = self.network, self.hparams["n_members"]
        if self._own_members:
            network, members = self.share.network, self.share.n_own
        mean = network(x.expand(members, *x.shape)).mean
        self._validation_errors.append((((mean - y) * self.space.target.varies) ** 2).sum(-2))

    def on_validation_epoch_end(self) -> None:
        """Saves the members that improved; stops training when all members are frozen."""
        errors = torch.stack(self._validation_errors).sum(0)
        errors = self.share.gather(errors) if self._own_members else gather_tensor(errors).sum(0)
        by_target = errors / len(self._data.validation)
        error = by_target @ self.weights
        self._validation_errors.clear()
        if self.trainer.sanity_checking:
            return
        if self.trainer.state.fn == "fit":
            improved = (error < self.best_error * (1 - self.hparams["min_improvement"])) & self.training_members
            # ``best_error`` is infinite at first, so the first validation saves every member with a finite error.
            self.best_network.copy_members(self.network, improved)
            self.best_error.copy_(torch.where(improved, error, self.best_error))
            self.epochs_without_improvement.copy_(torch.where(improved, 0, self.epochs_without_improvement + 1))
            self.trainer.should_stop = self.trainer.should_stop or not bool(self.training_members.any())
        best = self.best_error[self.elites]
        training = self.training_members.sum().float()
        self.log_synced({"val/error": best.mean()}, prog_bar=True)
        self.log_synced({"val/error_current": error.mean(), "val/members_training": training})
        self.log_synced({"val/error_reward": by_target[:, -1].mean()})

    @property
    def elites(self) -> Tensor:
        """Indices of the members with the smallest validation error, best first, ``(E,)``."""
        return self.best_error.argsort(stable=True)[: self.hparams["n_elites"]]

    # --- the trained model -----------------------------------------------------------------------------------------
    def world_model(self) -> WorldModel:
        """Returns the frozen elites with the statistics of the training split.

        Raises:
            UserError: no validation has taken place, so that no weights have been saved.
        """
        if not bool(torch.isfinite(self.best_error).any()):
            raise UserError("world model: found no validated member, expected at least one epoch with validation")
        hparams = self.hparams
        # Without a terminated step in the data, a predicted termination is an extrapolation that teams would exploit.
        termination = hparams["termination"] if bool(self.space.terminates) else "never"
        sizes = (hparams["n_elites"], hparams["width"], hparams["n_blocks"])
        model = WorldModel(self.spec, *sizes, termination, hparams["prior_scale"])
        model = (model.double() if self.dtype == torch.float64 else model).to(self.device)
        model.space.load_state_dict(self.space.state_dict())
        model.network.load_state_dict(self.best_network.subset(self.elites).state_dict())
        return model

    def on_test_start(self) -> None:
        self._tested = self.world_model()

    def test_step(self, batch: Transitions, index: int) -> None:
        """Does nothing: the metrics need whole trajectories; see ``on_test_epoch_end``."""

    def on_test_epoch_end(self) -> None:
        """Logs one-step and open-loop errors and the rank correlation of uncertainty and error on the test split."""
        self.log_synced(world_model_metrics(self._tested, self._data.test.to(self.device)))

    def on_predict_start(self) -> None:
        self._tested = self.world_model()

    def predict_step(self, batch: Transitions, _: int) -> dict[str, Tensor]:
        """Predicted next state and reward (mean over the elites) for the test split, in the units of the task."""
        prediction = self._tested(batch.state, batch.action)
        outcome = self._tested.space.target.inverse(prediction.mean.mean(0))
        return {"next_state": batch.state + outcome[:, :-1], "reward": outcome[:, -1]}
