"""Preemption: a machine that is taken away costs nothing but the epoch under way."""

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

from momalit.core.distributed import gather_objects

logger = logging.getLogger(__name__)


class Preemption(Callback):
    """Ends training after the epoch in which a signal came, when its checkpoint has been written.

    The signals are SIGTERM and, in a job of SLURM that may be requeued, the one that it sends ahead of the time limit
    (``#SBATCH --signal=SIGUSR1@SECONDS``): then the job is put into the queue again. It is enough that one process
    gets the signal. A machine that goes before the epoch has ended costs that epoch, which is trained again.

    Lightning's own handlers save or communicate wherever the signal finds each process, between two collectives of
    the others; so these take their place while training. What it asks the first process before every batch, whether
    such a signal came, is not asked then.
    """

    def __init__(self) -> None:
        self.received: int | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes the signals; the trainer gives them back when it has finished."""
        self.received = None
        if threading.current_thread() is not threading.main_thread():
            return

        def note(number: int, _: FrameType | None) -> None:
            first, self.received = self.received is None, number
            launcher: Any = trainer.strategy.launcher
            if first and launcher is not None and getattr(launcher, "procs", None):
                launcher.kill(number)  # to the processes that this one started

        for number in {signal.SIGTERM, *self._requeueing(trainer)}:
            signal.signal(number, note)
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # All processes end after the same epoch, whichever of them got the signal.
        numbers = {number for number in gather_objects(self.received) if number is not None}
        if numbers:
            self.received = min(numbers & self._requeueing(trainer) or numbers)
            trainer.should_stop = True

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ends the program, as one that a signal ended.

        Raises:
            SystemExit: a signal came.
        """
        if self.received is None:
            return
        name = signal.Signals(self.received).name
        logger.warning("%s: training ends after epoch %d, whose checkpoint is kept", name, trainer.current_epoch)
        if trainer.is_global_zero and self.received in self._requeueing(trainer):
            _requeue()
        raise SystemExit(128 + self.received)

    @staticmethod
    def _requeueing(trainer: pl.Trainer) -> set[int]:
        """The signal after which the job is put into SLURM's queue again, if there is one."""
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
        logger.warning("job %s could not be put into the queue again (%s)", job, problem)
    else:
        logger.info("job %s is in the queue again", job)
