"""What a command leaves behind: ``results.json``, figures of an evaluation, predictions."""

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
from momalit.policies.team_policy import TeamPolicyModule
from momalit.training.run_directory import RunDirectory, versions, write_json


def dataset_record(datamodule: Any) -> dict[str, Any]:
    """What ``run.json`` says about the data."""
    return {name: getattr(datamodule, name, None) for name in ("dataset", "env", "path", "fingerprint", "provenance")}


def report(
    trainer: pl.Trainer, model: pl.LightningModule, datamodule: Any, run: RunDirectory, seed: int | None, started: float
) -> None:
    """Evaluates what was trained and writes ``results.json``.

    Args:
        trainer: that has just finished.
        model: what it trained.
        datamodule: what on.
        run: the run's directory.
        seed: of the run.
        started: when it began, in seconds since the epoch.
    """
    if isinstance(model, TeamPolicyModule):
        from callbacks.final_report import final_report

        final_report(trainer, model, datamodule, run.path, seed, started)
        return
    held_out = _numbers(trainer.callback_metrics)
    tested = trainer.test(model, datamodule=datamodule, verbose=False)
    figures = {**held_out, **{name: value for part in tested for name, value in part.items()}}
    if trainer.is_global_zero:
        content = {"model": type(model).__name__, "seed": seed, "metrics": figures, "versions": versions()}
        write_json(run.path / "results.json", content)
        show(figures)


def save_figures(command: str, figures: Mapping[str, float], checkpoint: str, run: RunDirectory) -> Path:
    """Writes the figures of ``validate`` or ``test`` to ``<command>.json`` and shows them."""
    run.path.mkdir(parents=True, exist_ok=True)
    path = run.path / f"{command}.json"
    write_json(path, {"checkpoint": str(checkpoint), "metrics": dict(figures), "versions": versions()})
    show(figures)
    return path


def save_predictions(outputs: Sequence[Mapping[str, torch.Tensor]], run: RunDirectory) -> Path:
    """Writes the batches' predictions, joined along their first axis, to ``predictions.npz``.

    Raises:
        UserError: nothing was predicted.
    """
    if not outputs:
        raise UserError("data.test_fraction: holds out 0 trajectories, expected some to predict")
    run.path.mkdir(parents=True, exist_ok=True)
    path = run.path / "predictions.npz"
    arrays = {name: torch.cat([part[name] for part in outputs]).float().cpu().numpy() for name in outputs[0]}
    partial = path.with_name(f".{path.stem}.partial.npz")
    np.savez_compressed(partial, allow_pickle=False, **arrays)
    partial.replace(path)
    return path


def show(figures: Mapping[str, float]) -> None:
    """A table of figures for people."""
    table = Table("metric", "value")
    table.columns[1].justify = "right"
    for name, value in figures.items():
        table.add_row(name, f"{value:.4g}")
    console.print(table)


def _numbers(metrics: Mapping[str, torch.Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}
