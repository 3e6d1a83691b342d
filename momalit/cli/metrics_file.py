"""MetricsFile: a logger that writes ``metrics.csv``, with one row per epoch and the same bytes for the same seed."""

from __future__ import annotations

import csv
import io
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from momalit.core.files import replacing

EXCLUDED = ("time/", "speed/", "test/")  # times differ between equal runs; test metrics are in results.json


class MetricsFile(Logger):
    """Writes all metrics of an epoch to one row. If a metric is logged several times, the last value is written.

    Args:
        path: the file. A resumed run first calls ``truncate``, which reads the existing rows.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._columns = ["epoch", "step"]
        self._rows: list[dict[str, str]] = []
        self._offset = 0  # byte offset of the last row

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    @property
    @rank_zero_experiment
    def experiment(self) -> MetricsFile:
        return self

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Does nothing: hyper-parameters are in ``config.yaml`` and in every checkpoint."""

    @rank_zero_only
    def truncate(self, epoch: int) -> None:
        """Keeps only the file's rows before ``epoch``; the later epochs are trained again."""
        self._rows, self._columns = [], ["epoch", "step"]
        if self.path.is_file() and epoch:
            with self.path.open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                self._columns = list(reader.fieldnames or self._columns)
                # A killed process may leave an incomplete last row, whose epoch is trained again.
                self._rows = [row for row in reader if None not in row.values() and int(row["epoch"]) < epoch]
        if self.path.parent.is_dir():
            self._rewrite()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Adds metrics to the row of their epoch. Ignores them if ``epoch`` is missing or nothing else remains."""
        new = {name: repr(float(value)) for name, value in metrics.items() if not name.startswith(EXCLUDED)}
        if "epoch" not in new or len(new) == 1:
            return
        epoch = str(int(metrics["epoch"]))
        same_epoch = bool(self._rows) and self._rows[-1]["epoch"] == epoch
        row = {**(self._rows[-1] if same_epoch else {}), **new, "epoch": epoch, "step": str(step)}
        self._rows[len(self._rows) - same_epoch :] = [row]
        new_columns = sorted(set(row) - set(self._columns))
        if new_columns:
            # Sorted, so that the order in which callbacks log does not change the file.
            self._columns = [*self._columns[:2], *sorted({*self._columns[2:], *new_columns})]
        if new_columns or not self.path.is_file():
            self._rewrite()
        else:
            self._write_last(appended=not same_epoch)

    def _write_last(self, appended: bool) -> None:
        with self.path.open("r+", newline="", encoding="utf-8") as file:
            if appended:
                self._offset = file.seek(0, io.SEEK_END)
            file.seek(self._offset)
            csv.DictWriter(file, self._columns, lineterminator="\n").writerow(self._rows[-1])
            file.truncate()

    def _rewrite(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns, lineterminator="\n")
            writer.writeheader()
            for row in self._rows:
                self._offset = file.tell()
                writer.writerow(row)
