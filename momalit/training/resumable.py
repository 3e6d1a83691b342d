"""ResumableModule: training that continues bit for bit from a checkpoint, in one or several processes."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from momalit.core.distributed import gather_objects
from momalit.core.errors import DivergedError
from momalit.core.records import TensorRecord
from momalit.training.batches import loader
from momalit.training.gradient_averaging import SharedMemoryMean, shared_memory_mean
from momalit.training.trainer_checks import (
    require_epochs,
    require_float64,
    require_precision,
    require_strategy,
    stop_after_epochs,
)

logger = logging.getLogger(__name__)

_STATES, _RANDOM = "processes", "random"


class ResumableModule(pl.LightningModule):
    """A module whose checkpoints contain everything that training needs to continue as if never interrupted.

    Weights, optimisers and buffers are the same in all processes, and Lightning saves them. Each process may also have
    its own state, such as unfinished rollouts and random number generators. These states are gathered when a checkpoint
    is saved, which Lightning does in all processes at the same time.
    """

    def __init__(self) -> None:
        super().__init__()
        self._resumed: list[dict[str, Any]] | None = None
        self._mean: SharedMemoryMean | None = None

    # --- the trainer ------------------------------------------------------------------------------------------------
    def setup(self, stage: str) -> None:
        """Checks that the trainer is suitable."""
        self.require_trainer(self.trainer, fitting=stage == "fit")

    def require_trainer(self, trainer: pl.Trainer, fitting: bool) -> None:
        """Rejects trainers that would fail or silently compute something else.

        Args:
            trainer: the trainer that is about to run this module.
            fitting: whether it will train the module.

        Raises:
            UserError: the trainer is not suitable. The message names the setting.
        """
        require_strategy(trainer.strategy)
        require_precision(trainer.precision)
        require_float64(trainer.strategy.root_device)
        if fitting:
            require_epochs(trainer)
            stop_after_epochs(trainer)

    def on_fit_start(self) -> None:
        """Prepares averaging over processes, a common seed, and the device on which batches are sampled."""
        self._mean = None
        if isinstance(model := self.trainer.strategy.model, DistributedDataParallel):
            model.broadcast_buffers = False  # the buffers are already the same in all processes
            model.require_backward_grad_sync = self.averages_gradients
            self._mean = shared_memory_mean(model) if self.averages_gradients else None
        # Without seed_everything each process has a different seed, but the order of the data must be the same in all.
        seed = gather_objects(torch.initial_seed())[0]
        if seed != torch.initial_seed():
            torch.manual_seed(seed)
        to_device = getattr(self.trainer.datamodule, "to_device", None)  # type: ignore[attr-defined]
        if to_device is not None:
            to_device(self.device)

    @property
    def averages_gradients(self) -> bool:
        """Whether several processes average their gradients: they do unless each trains weights of its own."""
        return True

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Computes gradients and averages them over processes, unless Lightning's strategy does so."""
        super().backward(loss, *args, **kwargs)
        if self._mean is not None:
            self._mean([parameter.grad for parameter in self.parameters() if parameter.grad is not None])

    def log_synced(self, values: Mapping[str, Any], **how: Any) -> None:
        """Logs scalars that are the same in all processes, without averaging each of them over processes."""
        # Lightning warns without sync_dist. With rank_zero_only it does not warn and does not average.
        self.log_dict(values, sync_dist=True, rank_zero_only=True, **how)

    def on_fit_end(self) -> None:
        self._mean = None

    def stream(self, length: int, epoch_batches: Callable[[], Iterator[Any]]) -> DataLoader:
        """Returns a loader for the batches of ``epoch_batches``, with 64-bit floats if the weights have 64 bits."""
        return loader(length, lambda: map(self._match_precision, epoch_batches()))

    def _match_precision(self, batch: Any) -> Any:
        convert = self.dtype == torch.float64 and isinstance(batch, TensorRecord)
        return batch.floating(torch.float64) if convert else batch

    def require_finite(self, values: Mapping[str, Tensor]) -> None:
        """Stops training at numbers that are not finite.

        Args:
            values: this epoch's means, by name.

        Raises:
            DivergedError: one of them is not finite. The message names it, the epoch, and the first broken weights.
        """
        wrong = [name for name, value in values.items() if not bool(torch.isfinite(value).all())]
        if not wrong:
            return
        found = values[wrong[0]]
        number = float(found[~torch.isfinite(found)][0]) if found.dim() else float(found)
        weights = [name for name, weight in self.named_parameters() if not bool(torch.isfinite(weight).all())]
        title = type(self).__name__.removesuffix("Module")
        rates = ", ".join(
            f"{name} {value:g}" for name, value in self.hparams.items() if name.split("_")[-1] == "lr" and value
        )
        raise DivergedError(
            f"{title}: {wrong[0]} is {number} in epoch {self.current_epoch}"
            + (f", and so are the weights {weights[0]}" if weights else "")
            + f"; the likely cause is a learning rate ({rates}) that is too high for this data"
        )

    @property
    def fused(self) -> bool:
        """Whether optimisers may be fused. With a gradient scaler, they would unscale gradients after clipping."""
        return self._trainer is None or getattr(self.trainer.precision_plugin, "scaler", None) is None

    # --- the state of each process ---------------------------------------------------------------------------------
    def process_state(self) -> dict[str, Any]:
        """Returns the state of this process that the next epoch needs, as plain values and tensors."""
        return {}

    def restore_process_state(self, state: dict[str, Any]) -> None:
        """Restores a state returned by ``process_state``. Called when training begins."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[_STATES] = gather_objects({**self.process_state(), _RANDOM: global_rng_state()})

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._resumed = checkpoint.get(_STATES)
        if self._trainer is not None and self.trainer.precision == "64-true":
            self.double()  # Lightning does so only after loading the weights, which would then be rounded to 32 bits

    def on_train_start(self) -> None:
        """Restores the state that this process had when the checkpoint was saved."""
        states, self._resumed = self._resumed, None
        if states is None:
            return
        same_processes = len(states) == self.trainer.world_size
        if not same_processes and any(set(state) != {_RANDOM} for state in states):
            logger.warning(
                "the checkpoint was saved by %d processes, now there are %d: unfinished rollouts are reset",
                len(states),
                self.trainer.world_size,
            )
            return
        state = states[self.global_rank if same_processes else 0]
        self.restore_process_state(state)
        seed, requested = state[_RANDOM]["seed"], os.environ.get("PL_GLOBAL_SEED")
        if requested is not None and int(requested) != seed:
            logger.info("seed_everything: %s from the command line (checkpoint: %d)", requested, seed)
        else:
            restore_global_rng_state(state[_RANDOM])


def global_rng_state() -> dict[str, Any]:
    """Returns the states of the global random number generators, from which a user's callbacks may sample."""
    numpy: Any = np.random.get_state(legacy=False)  # noqa: NPY002
    version, words, gauss = random.getstate()
    return {
        "seed": torch.initial_seed(),
        "torch": torch.get_rng_state(),
        "numpy": [torch.from_numpy(numpy["state"]["key"].astype(np.int64)), int(numpy["state"]["pos"])],
        "numpy_gauss": [int(numpy["has_gauss"]), float(numpy["gauss"])],
        "python": [version, list(words), gauss],
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def restore_global_rng_state(states: dict[str, Any]) -> None:
    """Restores states returned by ``global_rng_state``."""
    torch.set_rng_state(states["torch"])
    (key, position), (has_gauss, gauss) = states["numpy"], states["numpy_gauss"]
    state = {"key": key.numpy().astype(np.uint32), "pos": position}
    np.random.set_state(  # noqa: NPY002
        {"bit_generator": "MT19937", "state": state, "has_gauss": has_gauss, "gauss": gauss}
    )
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
