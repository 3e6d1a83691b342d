"""Console output: shows this library's log lines and hides harmless messages of other packages."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import rich.table
from rich.console import Console

from momalit.studies.tables import Table

console = Console(stderr=True)

# Patterns of warnings that are not shown, with the reason.
HARMLESS_WARNINGS = (
    r".*does not have many workers",  # the data are tensors in memory, which workers would only copy
    r".*number of training batches .* is smaller than the logging interval",  # short epochs are common here
    r".*in eval mode at the start of training",  # the frozen world model stays in eval mode
    r".*could not find the monitored key",  # the metric does not exist before the first evaluation
    r".*exists and is not empty",  # a resumed run uses its own directory again
    r".*Be aware that when using `ckpt_path`",  # evaluation does not need the callbacks of training
    r".*You are trying to `self.log\(\)` but the `self.trainer` reference is not registered",
    r".*The dirpath has changed from",  # a checkpoint was moved to another machine or folder
    r".*was configured without a logger",
    r".*GPU available but not used",
    r".*`training_step` returned `None`",
    r".*Your `IterableDataset` has `__len__` defined",  # intended; the loader has no workers
    r"\s*By default only one JsonargparseDeprecationWarning",  # Lightning's use of jsonargparse
    r"\s*``instantiate_classes`` was deprecated",
    r".*isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning's own use of torch
    r".*AMP with fp16 is not supported on CPU",  # require_precision_on_device raises a UserError instead
    r".*Experiment logs directory .* exists",
)


def print_table(content: Table) -> None:
    """Prints a table, with its highlighted rows in bold."""
    table = rich.table.Table(title=content.title)
    for number, name in enumerate(content.header):
        table.add_column(name, justify="right" if number else "left")
    for number, row in enumerate(content.rows):
        table.add_row(*(cell.strip("*") for cell in row), style="bold" if number in content.best else None)
    console.print(table)


class ConsoleHandler(logging.Handler):
    """Prints each log record on one line, above a running progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
            console.print(prefix + self.format(record), soft_wrap=True, markup=False, highlight=False)
        except Exception:  # as in the standard library, an error in logging must not stop the run
            self.handleError(record)


@contextmanager
def console_logging(quiet: bool = False) -> Iterator[None]:
    """Shows this library's log lines, and of Lightning's only warnings and errors, inside the ``with`` block.

    If ``quiet``, and in processes with ``LOCAL_RANK`` above 0, the same holds for this library's loggers.
    """
    handler = ConsoleHandler()
    own_loggers = [logging.getLogger(name) for name in ("momalit", "datamodules", "callbacks")]
    lightning_loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    previous_levels = [(logger, logger.level) for logger in (*own_loggers, *lightning_loggers)]
    with warnings.catch_warnings():
        for message in HARMLESS_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        for logger in own_loggers:
            logger.addHandler(handler)
            logger.setLevel(logging.WARNING if quiet or os.environ.get("LOCAL_RANK", "0") != "0" else logging.INFO)
        for logger in lightning_loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in previous_levels:
                logger.setLevel(level)
            for logger in own_loggers:
                logger.removeHandler(handler)
