"""MetricsFile: a logger that writes ``metrics.csv``, with one row per epoch and the same bytes for the same seed."""

from __future__ import annotations

import csv
import io
from argparse import Namespace
from collections.abc import Mapping, Sequence
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
        self._last: dict[str, str] = {}  # the last row; the earlier ones are only in the file, or memory would grow
        self._offset = 0  # its byte offset

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
        rows = self._earlier_rows(epoch)
        self._columns = list(rows[0]) if rows else ["epoch", "step"]
        self._last = rows[-1] if rows else {}
        if self.path.parent.is_dir():
            self._rewrite(rows)

    def _earlier_rows(self, epoch: int) -> list[dict[str, str]]:
        """Reads the file's rows before ``epoch``, without an incomplete last one that a killed process may leave."""
        if not self.path.is_file():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if None not in row.values()]
        return [row for row in rows if int(row["epoch"]) < epoch]

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Adds metrics to the row of their epoch. Ignores them if ``epoch`` is missing or nothing else remains."""
        new = {name: repr(float(value)) for name, value in metrics.items() if not name.startswith(EXCLUDED)}
        if "epoch" not in new or len(new) == 1:
            return
        epoch = str(int(metrics["epoch"]))
        same_epoch = self._last.get("epoch") == epoch
        self._last = {**(self._last if same_epoch else {}), **new, "epoch": epoch, "step": str(step)}
        new_columns = set(self._last) - set(self._columns)
        if new_columns:
            # Sorted, so that the order in which callbacks log does not change the file.
            self._columns = [*self._columns[:2], *sorted({*self._columns[2:], *new_columns})]
        if new_columns or not self.path.is_file():
            self._rewrite([*self._earlier_rows(int(epoch)), self._last])
        else:
            self._write_last(appended=not same_epoch)

    def _write_last(self, appended: bool) -> None:
        with self.path.open("r+", newline="", encoding="utf-8") as file:
            if appended:
                self._offset = file.seek(0, io.SEEK_END)
            file.seek(self._offset)
            csv.DictWriter(file, self._columns, lineterminator="\n").writerow(self._last)
            file.truncate()

    def _rewrite(self, rows: Sequence[Mapping[str, str]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns, lineterminator="\n")
            writer.writeheader()
            for row in rows:
                self._offset = file.tell()
                writer.writerow(row)
