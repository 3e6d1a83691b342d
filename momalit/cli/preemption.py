"""Preemption: stops training at the end of the epoch in which a termination signal arrives."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.environments import SLURMEnvironment

from momalit.cli.interrupts import require_no_interrupt
from momalit.core.distributed import gather_objects

logger = logging.getLogger(__name__)


class Preemption(Callback):
    """Stops training at the end of the epoch in which a signal arrives, after the epoch's checkpoint is saved.

    The signals are SIGTERM and, in a SLURM job that may be requeued, the one that SLURM sends before the time limit
    (``#SBATCH --signal=SIGUSR1@SECONDS``). After the latter the job is requeued. One process that receives the signal
    stops all of them. If the machine disappears during the epoch, a resumed run trains that epoch again.

    The signal handlers replace Lightning's during training. Lightning's would save or communicate at different points
    in different processes, possibly between two collective operations. Lightning's broadcast before every batch, which
    asks whether rank 0 received SIGTERM, is disabled.

    Ctrl-C stops training at once, or before the next batch if a library swallowed the exception.
    """

    def __init__(self) -> None:
        self.received: int | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Installs the signal handlers. The trainer restores the previous ones after ``fit``."""
        self.received = None
        if threading.current_thread() is not threading.main_thread():
            return

        def record_signal(number: int, _: FrameType | None) -> None:
            first, self.received = self.received is None, number
            launcher: Any = trainer.strategy.launcher
            if first and launcher is not None and getattr(launcher, "procs", None):
                launcher.kill(number)  # forwards the signal to the processes that this one started

        for number in {signal.SIGTERM, *self._requeue_signals(trainer)}:
            signal.signal(number, record_signal)
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]

    def on_train_batch_start(self, *_: Any) -> None:
        require_no_interrupt()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # All processes stop after the same epoch, even if only one received the signal.
        numbers = {number for number in gather_objects(self.received) if number is not None}
        if numbers:
            self.received = min(numbers & self._requeue_signals(trainer) or numbers)
            trainer.should_stop = True

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Exits with code 128 + signal number, like a program that was ended by the signal.

        Raises:
            SystemExit: a signal was received.
        """
        if self.received is None:
            return
        name = signal.Signals(self.received).name
        logger.warning("%s: training stops after epoch %d; its checkpoint is saved", name, trainer.current_epoch)
        if trainer.is_global_zero and self.received in self._requeue_signals(trainer):
            _requeue()
        raise SystemExit(128 + self.received)

    @staticmethod
    def _requeue_signals(trainer: pl.Trainer) -> set[int]:
        """Returns the signal after which the SLURM job is requeued, or an empty set if there is none."""
        environment = getattr(trainer.strategy, "cluster_environment", None) or getattr(
            trainer._accelerator_connector, "cluster_environment", None
        )
        if not isinstance(environment, SLURMEnvironment) or not environment.auto_requeue:
            return set()
        return set() if environment.requeue_signal is None else {int(environment.requeue_signal)}


def _requeue() -> None:
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
        problem = done.stderr.strip() if done.returncode else ""
    except OSError as error:
        problem = f"scontrol: {error.strerror}"
    if problem:
        logger.warning("SLURM job %s could not be requeued (%s)", job, problem)
    else:
        logger.info("SLURM job %s is requeued", job)
