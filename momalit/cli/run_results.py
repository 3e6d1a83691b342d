"""Writes and shows the results of a command: ``results.json``, metrics of an evaluation, predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from rich.table import Table

from momalit.cli.console import console
from momalit.core.errors import UserError
from momalit.core.files import replacing
from momalit.policies.team_policy import TeamPolicyModule
from momalit.training.run_directory import RunDirectory, versions, write_json


def dataset_record(datamodule: Any) -> dict[str, Any]:
    """Returns the entry ``dataset`` of ``run.json``."""
    return {name: getattr(datamodule, name, None) for name in ("dataset", "env", "path", "fingerprint", "provenance")}


def evaluate_and_save(
    trainer: pl.Trainer, model: pl.LightningModule, datamodule: Any, run: RunDirectory, seed: int | None, started: float
) -> None:
    """Tests the trained model, writes ``results.json`` and shows the metrics.

    Args:
        trainer: the trainer, which has finished ``fit``.
        model: the trained module.
        datamodule: the data it was trained on.
        run: the run's directory.
        seed: the run's seed.
        started: start time of the command, in seconds since 1970.
    """
    if isinstance(model, TeamPolicyModule):
        from callbacks.final_report import final_report

        final_report(trainer, model, datamodule, run.path, seed, started)
        return
    fit_metrics = _as_floats(trainer.callback_metrics)
    test_metrics = trainer.test(model, datamodule=datamodule, verbose=False)
    metrics = {**fit_metrics, **{name: value for part in test_metrics for name, value in part.items()}}
    if trainer.is_global_zero:
        content = {"model": type(model).__name__, "seed": seed, "metrics": metrics, "versions": versions()}
        write_json(run.path / "results.json", content)
        show(metrics)


def save_metrics(command: str, metrics: Mapping[str, float], checkpoint: str, run: RunDirectory) -> Path:
    """Writes the metrics of ``validate`` or ``test`` to ``<command>.json``, shows them, and returns the file's path."""
    run.path.mkdir(parents=True, exist_ok=True)
    path = run.path / f"{command}.json"
    write_json(path, {"checkpoint": str(checkpoint), "metrics": dict(metrics), "versions": versions()})
    show(metrics)
    return path


def save_predictions(outputs: Sequence[Mapping[str, torch.Tensor]], run: RunDirectory) -> Path:
    """Writes the predictions of all batches, concatenated along the first axis, to ``predictions.npz``.

    Returns:
        the file's path.

    Raises:
        UserError: there are no predictions.
    """
    if not outputs:
        raise UserError("data.test_fraction: found 0 test trajectories, expected at least 1 for predict")
    run.path.mkdir(parents=True, exist_ok=True)
    path = run.path / "predictions.npz"
    arrays = {name: torch.cat([part[name] for part in outputs]).float().cpu().numpy() for name in outputs[0]}
    with replacing(path) as partial:
        np.savez_compressed(partial, allow_pickle=False, **arrays)
    return path


def show(metrics: Mapping[str, float]) -> None:
    """Prints a table of metrics."""
    table = Table("metric", "value")
    table.columns[1].justify = "right"
    for name, value in metrics.items():
        table.add_row(name, f"{value:.4g}")
    console.print(table)


def _as_floats(metrics: Mapping[str, torch.Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}
