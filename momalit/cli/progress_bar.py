"""EpochProgress: one bar for the whole training, with the number that matters; plain lines without a terminal."""

from __future__ import annotations

import logging
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from momalit.cli.console import console

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0


class EpochProgress(ProgressBar):
    """Shows epochs done, and the monitored metric now and at its best.

    Args:
        title: what is trained.
        monitor: name of the metric, or None for those logged with ``prog_bar=True``.
        mode: ``max`` or ``min``: which way is better.
    """

    def __init__(self, title: str, monitor: str | None, mode: str = "max") -> None:
        super().__init__()
        self.title, self.monitor, self.mode = title, monitor, mode
        self.best: float | None = None
        self._bar: Progress | None = None
        self._began = self._said = 0.0
        self._enabled = True

    def state_dict(self) -> dict[str, Any]:
        """The best so far, which a continued run shows again."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._began = self._said = time.monotonic()
        if not self._enabled or not console.is_terminal:
            return
        columns = ("{task.description}", BarColumn(), "{task.completed:.0f}/{task.total:.0f}")
        self._bar = Progress(
            *columns, TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[number]}"), console=console
        )
        self._bar.start()
        total = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None
        self._task = self._bar.add_task(self.title, total=total, completed=trainer.current_epoch, number="")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        number = self._number(trainer)
        done = trainer.current_epoch + 1
        if self._bar is not None:
            self._bar.update(self._task, completed=done, number=number)
            return
        now = time.monotonic()
        if self._enabled and (now - self._said >= SECONDS_BETWEEN_LINES or done == trainer.max_epochs):
            self._said = now
            of = f"/{trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
            detail = f", {number}" if number else ""
            logger.info("%s: epoch %d%s, %.0f s%s", self.title, done, of, now - self._began, detail)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._stop()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._stop()

    def print(self, *args: Any, **kwargs: Any) -> None:
        """What ``trainer.print`` says."""
        if self._enabled:
            logger.info(" ".join(map(str, args)))

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _number(self, trainer: pl.Trainer) -> str:
        if self.monitor is None:
            return ", ".join(f"{k} {float(v):.4g}" for k, v in trainer.progress_bar_metrics.items())
        value = trainer.callback_metrics.get(self.monitor)
        if value is None:
            return ""
        now = float(value)
        self.best = now if self.best is None else (max if self.mode == "max" else min)(self.best, now)
        return f"{self.monitor} {now:.4g} (best {self.best:.4g})"
