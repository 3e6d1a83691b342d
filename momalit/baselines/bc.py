"""Behaviour cloning (BC): each agent imitates its own actions in the dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from momalit.baselines.offline_learner import OfflineLearner
from momalit.core.checks import require_numbers
from momalit.core.distributed import reweight
from momalit.core.records import Windows
from momalit.core.team import TeamSpec
from momalit.core.trajectories import Trajectories
from momalit.functional.surrogate import masked_mean
from momalit.nn.actors import TeamActor
from momalit.training.hyperparameters import plain_arguments


class BCModule(OfflineLearner):
    """Maximises the likelihood of each agent's actions given its own history.

    Args:
        spec: the team (set from the dataset on the command line).
        width: units of the linear layers.
        gru_size: units of the GRUs; 0 for policies that depend on the current observation only.
        share_parameters: whether all agents share one network.
        lr: initial learning rate, annealed to zero by a half cosine.
        window: steps per training window.
        burn_in: real steps of burn-in before each window.
        batch_size: windows per minibatch, over all processes.
        top_fraction: fraction of the training episodes to clone, those with the highest returns; 1 for all.
        initial_std: initial standard deviation of continuous actions, as a fraction of half their range.
        min_std: lower bound of the standard deviation, in the same units.
    """

    title = "behaviour cloning"

    def __init__(
        self,
        spec: TeamSpec | Mapping[str, Any],
        width: int = 256,
        gru_size: int = 128,
        share_parameters: bool = False,
        lr: float = 1e-3,
        window: int = 25,
        burn_in: int = 10,
        batch_size: int = 64,
        top_fraction: float = 1.0,
        initial_std: float = 0.5,
        min_std: float = 0.05,
    ) -> None:
        arguments = plain_arguments(locals())
        super().__init__(spec)
        self.save_hyperparameters(arguments)
        require_numbers("model.", {"width": width, "window": window, "batch_size": batch_size}, least=1)
        require_numbers("model.", {"gru_size": gru_size, "burn_in": burn_in}, least=0)
        require_numbers("model.", {"top_fraction": top_fraction}, above=0, most=1)
        require_numbers("model.", {"lr": lr}, above=0)
        self.actor = TeamActor(self.spec, width, gru_size, share_parameters, initial_std, min_std)
        self.window_length = window
        self._selected: Trajectories | None = None

    def setup(self, stage: str) -> None:
        """Computes the statistics of the training split and selects the episodes to clone."""
        super().setup(stage)
        if stage == "fit":
            train: Trajectories = self.data.train.to("cpu")  # the module is still on the CPU
            best = train.best_episodes(self.hparams["top_fraction"])
            self._selected = train if len(best) == len(train.lengths) else train.select(best)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self._selected = self.training_data.to(self.data.train.reward.device)

    @property
    def training_data(self) -> Trajectories:
        """The episodes to clone."""
        assert self._selected is not None, "set by setup('fit')"
        return self._selected

    @property
    def windows_per_epoch(self) -> int:
        """Number of windows with as many steps as the selected episodes."""
        return max(self.training_data.count_windows(self.window_length) // self.window_length, 1)

    @property
    def windows_per_batch(self) -> int:
        return self.hparams["batch_size"]

    def sample_windows(self, generator: torch.Generator) -> Tensor:
        """Samples windows without replacement."""
        count = self.training_data.count_windows(self.window_length)
        return torch.randperm(count, generator=generator)[: self.windows_per_epoch]

    def make_batch(self, index: Tensor, missing: Tensor) -> Windows:
        return self.training_data.windows(index, self.hparams["burn_in"], self.window_length, missing)

    def training_step(self, batch: Windows, _: int) -> Tensor:
        """Returns the negative log-likelihood per valid step and agent."""
        burn_in = batch.sequence.state.shape[0] - batch.action.shape[0]
        hidden_state = self.actor.hidden_states(batch.sequence)[:, burn_in:]
        policy = self.actor.distribution(hidden_state, batch.sequence.state[burn_in:])
        loss = reweight(-masked_mean(policy.log_prob(batch.action), batch.valid), batch.weight)
        self.record({"loss": loss})
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.Adam(self.actor.parameters(), self.hparams["lr"], fused=self.fused)
        if not self.trainer.max_epochs or self.trainer.max_epochs < 1:
            return optimizer
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.trainer.max_epochs)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "epoch"}}
