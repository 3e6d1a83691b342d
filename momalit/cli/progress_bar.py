"""EpochProgress: a progress bar that counts epochs and shows a metric; without a terminal, it logs lines instead."""

from __future__ import annotations

import logging
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from momalit.cli.console import console

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0  # at least; the last epoch is always logged


class EpochProgress(ProgressBar):
    """Shows the number of finished epochs, and the latest and best values of the monitored metric.

    Args:
        title: name of what is trained, e.g. ``world model``.
        monitor: name of the metric; None for none. The metrics that are logged with ``prog_bar=True`` follow it.
        mode: ``max`` or ``min``: whether larger or smaller values of the metric are better.
    """

    def __init__(self, title: str, monitor: str | None, mode: str = "max") -> None:
        super().__init__()
        self.title, self.monitor, self.mode = title, monitor, mode
        self.best: float | None = None
        self._bar: Progress | None = None
        self._started = self._last_line = 0.0
        self._enabled = True

    def state_dict(self) -> dict[str, Any]:
        """Returns the best value so far, which a resumed run shows again."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started = self._last_line = time.monotonic()
        if not self._enabled or not console.is_terminal:
            return
        columns = ("{task.description}", BarColumn(), "{task.completed:.0f}/{task.total:.0f}")
        self._bar = Progress(
            *columns, TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[metrics]}"), console=console
        )
        self._bar.start()
        total = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None
        self._task = self._bar.add_task(self.title, total=total, completed=trainer.current_epoch, metrics="")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = self._metrics(trainer)
        done = trainer.current_epoch + 1
        if self._bar is not None:
            self._bar.update(self._task, completed=done, metrics=metrics)
            return
        now = time.monotonic()
        if self._enabled and (now - self._last_line >= SECONDS_BETWEEN_LINES or done == trainer.max_epochs):
            self._last_line = now
            total = f"/{trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
            detail = f", {metrics}" if metrics else ""
            logger.info("%s: epoch %d%s, %.0f s%s", self.title, done, total, now - self._started, detail)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._stop()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._stop()

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Logs the text of ``trainer.print``."""
        if self._enabled:
            logger.info(" ".join(map(str, args)))

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _metrics(self, trainer: pl.Trainer) -> str:
        shown = {name: f"{float(value):.4g}" for name, value in trainer.progress_bar_metrics.items()}
        if self.monitor is not None and (value := trainer.callback_metrics.get(self.monitor)) is not None:
            latest = float(value)
            self.best = latest if self.best is None else (max if self.mode == "max" else min)(self.best, latest)
            shown.pop(self.monitor, None)
            shown = {self.monitor: f"{latest:.4g} (best {self.best:.4g})", **shown}
        return ", ".join(f"{name} {text}" for name, text in shown.items())
