"""ResumableModule: what continues bit for bit, in any number of processes."""

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
from momalit.core.records import TensorRecord
from momalit.training.batches import loader
from momalit.training.gradient_averaging import SharedMemoryMean, shared_memory_mean
from momalit.training.trainer_checks import require_precision, require_strategy

logger = logging.getLogger(__name__)

_KEY, _RANDOM = "processes", "random"


class ResumableModule(pl.LightningModule):
    """A module whose checkpoints hold what every process needs to go on as if it had never stopped.

    Weights, optimisers and buffers are the same in all processes, and Lightning saves them. Beside them, each process
    may hold a state of its own (rows of rollouts that go on, streams of random numbers), which is gathered when a
    checkpoint is made. Lightning makes checkpoints in all processes together.
    """

    def __init__(self) -> None:
        super().__init__()
        self._resumed: list[dict[str, Any]] | None = None
        self._mean: SharedMemoryMean | None = None

    # --- what every trainer must offer, and what it changes ---------------------------------------------------------
    def setup(self, stage: str) -> None:
        """Refuses trainers that do not suit."""
        self.require_trainer(self.trainer, fitting=stage == "fit")

    def require_trainer(self, trainer: pl.Trainer, fitting: bool) -> None:
        """Refuses trainers that would fail, or silently compute something else.

        Args:
            trainer: what is about to run this module.
            fitting: whether it shall train it.

        Raises:
            UserError: naming the setting.
        """
        require_strategy(trainer.strategy)
        require_precision(trainer.precision)

    def on_fit_start(self) -> None:
        """Lets the data move to where they are drawn from, and several processes agree without wasting time."""
        self._mean = None
        if isinstance(model := self.trainer.strategy.model, DistributedDataParallel):
            model.broadcast_buffers = False  # what is in them comes from all processes already
            self._mean = shared_memory_mean(model)
        # Without seed_everything each process has a seed of its own; orders of the data must be the same in all.
        first = gather_objects(torch.initial_seed())[0]
        if first != torch.initial_seed():
            torch.manual_seed(first)
        move = getattr(self.trainer.datamodule, "to_device", None)  # type: ignore[attr-defined]
        if move is not None:
            move(self.device)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """After the backward pass gradients are those of all processes, by Lightning's strategy or here."""
        super().backward(loss, *args, **kwargs)
        if self._mean is not None:
            self._mean([parameter.grad for parameter in self.parameters() if parameter.grad is not None])

    def log_synced(self, values: Mapping[str, Any], **how: Any) -> None:
        """Logs scalars that are the same in all processes, which Lightning would average one by one."""
        # It warns of values that are not to be averaged, but not of those of the first process.
        self.log_dict(values, sync_dist=True, rank_zero_only=True, **how)

    def on_fit_end(self) -> None:
        self._mean = None

    def stream(self, length: int, draw: Callable[[], Iterator[Any]]) -> DataLoader:
        """A loader over ready-made batches, whose floats are as wide as the weights."""
        return loader(length, lambda: map(self._as_wide, draw()))

    def _as_wide(self, batch: Any) -> Any:
        wider = self.dtype == torch.float64 and isinstance(batch, TensorRecord)
        return batch.floating(torch.float64) if wider else batch

    @property
    def fused(self) -> bool:
        """Whether optimisers may be fused: not with a gradient scaler, which a fused one undoes after clipping."""
        return self._trainer is None or getattr(self.trainer.precision_plugin, "scaler", None) is None

    # --- what each process holds -----------------------------------------------------------------------------------
    def process_state(self) -> dict[str, Any]:
        """What this process alone knows and the next epoch needs: plain values and tensors."""
        return {}

    def restore_process_state(self, state: dict[str, Any]) -> None:
        """The inverse of ``process_state``; called when training begins."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[_KEY] = gather_objects({**self.process_state(), _RANDOM: global_rng_state()})

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._resumed = checkpoint.get(_KEY)
        if self._trainer is not None and self.trainer.precision == "64-true":
            self.double()  # Lightning does so after it has loaded the weights, which would be rounded then

    def on_train_start(self) -> None:
        """Takes up what this process held when the checkpoint was made."""
        states, self._resumed = self._resumed, None
        if states is None:
            return
        if len(states) != self.trainer.world_size:
            logger.warning(
                "the checkpoint was made by %d processes, now there are %d: rollouts under way begin anew",
                len(states),
                self.trainer.world_size,
            )
            return
        state = states[self.global_rank]
        self.restore_process_state(state)
        seed, asked = state[_RANDOM]["seed"], os.environ.get("PL_GLOBAL_SEED")
        if asked is not None and int(asked) != seed:
            logger.info("seed_everything: %s from the command line (checkpoint: %d)", asked, seed)
        else:
            restore_global_rng_state(state[_RANDOM])


def global_rng_state() -> dict[str, Any]:
    """Where the global random generators stand, which callbacks of a user's may draw from."""
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


def restore_global_rng_state(streams: dict[str, Any]) -> None:
    """The inverse of ``global_rng_state``."""
    torch.set_rng_state(streams["torch"])
    (key, position), (has_gauss, gauss) = streams["numpy"], streams["numpy_gauss"]
    state = {"key": key.numpy().astype(np.uint32), "pos": position}
    np.random.set_state(  # noqa: NPY002
        {"bit_generator": "MT19937", "state": state, "has_gauss": has_gauss, "gauss": gauss}
    )
    version, words, gauss = streams["python"]
    random.setstate((version, tuple(words), gauss))
    if streams["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(streams["cuda"])
