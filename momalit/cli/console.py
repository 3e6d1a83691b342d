"""What the command line says while it works, and what it keeps to itself."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

console = Console(stderr=True)

# Known to be harmless, each with the reason; anything else that warns is shown.
HARMLESS_WARNINGS = (
    r".*does not have many workers",  # data are tensors in memory: workers would only copy them
    r".*number of training batches .* is smaller than the logging interval",  # short epochs are the rule here
    r".*in eval mode at the start of training",  # the frozen world model stays in eval mode
    r".*could not find the monitored key",  # before the first evaluation there is nothing to compare
    r".*exists and is not empty",  # a run continues in its own directory
    r".*Be aware that when using `ckpt_path`",  # evaluating needs none of the training's callbacks
    r".*You are trying to `self.log\(\)` but the `self.trainer` reference is not registered",
    r".*The dirpath has changed from",  # a checkpoint was moved to another machine or folder
    r".*was configured without a logger",
    r".*GPU available but not used",
    r".*`training_step` returned `None`",
    r".*Your `IterableDataset` has `__len__` defined",  # it has one on purpose, and no workers
    r"\s*By default only one JsonargparseDeprecationWarning",  # Lightning's use of jsonargparse
    r"\s*``instantiate_classes`` was deprecated",
    r".*isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning's own use of torch
    r".*AMP with fp16 is not supported on CPU",  # refused in our own words
    r".*Experiment logs directory .* exists",
)


class ConsoleHandler(logging.Handler):
    """Shows log records above a running progress bar, one line each."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
            console.print(prefix + self.format(record), soft_wrap=True, markup=False, highlight=False)
        except Exception:  # logging must never stop a run: the standard library's convention
            self.handleError(record)


@contextmanager
def console_logging() -> Iterator[None]:
    """Lets momalit's loggers speak and Lightning's chatter rest, until the command ends."""
    handler = ConsoleHandler()
    ours = [logging.getLogger(name) for name in ("momalit", "datamodules", "callbacks")]
    theirs = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    before = [(logger, logger.level) for logger in (*ours, *theirs)]
    with warnings.catch_warnings():
        for message in HARMLESS_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        for logger in ours:
            logger.addHandler(handler)
            logger.setLevel(logging.INFO if os.environ.get("LOCAL_RANK", "0") == "0" else logging.WARNING)
        for logger in theirs:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in before:
                logger.setLevel(level)
            for logger in ours:
                logger.removeHandler(handler)
