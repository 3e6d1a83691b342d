"""Writes a study's results to tidy files: one row per run, per evaluation during training, or per cross-play team."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from momalit.studies.grid import ORDER, Cell, Study
from momalit.training.run_directory import write_text

RUNS, RECORDS, CURVES, STUDY = "results.csv", "results.jsonl", "curves.csv", "study.yaml"
CHANGED, CROSS_PLAY = "changed.csv", "cross_play.csv"
FILES = (RUNS, RECORDS, CURVES, CHANGED, CROSS_PLAY, STUDY)
RESULT = "results.json"  # in a run's directory
VERSIONS = ("momalit", "torch", "mujoco")
# Completes "the runs have no real returns, because ..."
WITHOUT_ENVIRONMENT = "their data name no environment, or evaluation.environment is false"
METRICS = (
    "return_last",
    "return_last_low",
    "return_last_high",
    "return_best",
    "return_best_low",
    "return_best_high",
    "estimate_last",
    "estimate_best",
    "normalized_last",
    "normalized_best",
    "distance",
    "episodes",
    "deterministic",
    "return_data",
    "return_data_top",
    "return_random",
    "return_expert",
    "gradient_steps",
    "wall_clock_seconds",
)


def write_results(study: Study, directory: Path) -> list[dict[str, Any]]:
    """Writes ``results.csv``, ``results.jsonl``, ``curves.csv`` and ``study.yaml`` for the finished runs.

    Runs that were tested in changed worlds too are in ``changed.csv``.

    Returns:
        the rows of ``results.csv``, one per finished run.
    """
    rows: list[dict[str, Any]] = []
    records, points, worlds = [], [], []
    for cell in study.cells:
        path = directory / cell.folder / RESULT
        if not path.is_file():
            continue
        content = json.loads(path.read_text(encoding="utf-8"))
        curve = list(_curve(directory / cell.folder / "metrics.csv"))
        labels = _labels(study, cell)
        rows.append({**labels, **_metrics(content, curve), **{n: content["versions"].get(n, "") for n in VERSIONS}})
        records.append({**labels, **content})
        points += [{**labels, **point} for point in curve if point["return"]]
        worlds += [{**labels, **world} for world in _worlds(content)]
    columns = ["study", *ORDER, "seed"]
    write_table(directory / RUNS, [*columns, *METRICS, *VERSIONS], rows)
    write_table(directory / CURVES, [*columns[1:], "epoch", "step", "rollout_steps", "return", "estimate"], points)
    if worlds:
        write_table(directory / CHANGED, [*columns[1:], "world", "return", "low", "high"], worlds)
    write_text(directory / RECORDS, "".join(json.dumps(record) + "\n" for record in records))
    write_text(directory / STUDY, study.text)
    return rows


def write_cross_play(study: Study, directory: Path, files: Mapping[Path, Path]) -> None:
    """Writes ``cross_play.csv``.

    Args:
        study: the study.
        directory: the study's folder.
        files: for each group of runs, the file that the command ``cross-play`` wrote.
    """
    rows = []
    for group, cells in study.groups.items():
        if group in files and files[group].is_file():
            labels = {name: value for name, value in _labels(study, cells[0]).items() if name in ORDER}
            rows += [{**labels, **team} for team in json.loads(files[group].read_text(encoding="utf-8"))["teams"]]
    if rows:
        write_table(directory / CROSS_PLAY, [*ORDER, "seeds", "kind", "return"], rows)


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a CSV file atomically. Missing values are empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if value is None else value for name, value in row.items()} for row in rows)
    write_text(path, text.getvalue())


def _labels(study: Study, cell: Cell) -> dict[str, Any]:
    return {"study": study.name, **{name: getattr(cell, name) for name in ORDER}, "seed": cell.seed}


def _metrics(content: Mapping[str, Any], curve: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    metrics: dict[str, Any] = {name: content.get(name) for name in METRICS}
    for which in ("last", "best"):
        interval = content[f"return_{which}_interval"] or (None, None)
        metrics[f"return_{which}_low"], metrics[f"return_{which}_high"] = interval
    metrics["gradient_steps"] = int(curve[-1]["step"]) + 1 if curve else None  # Lightning counts from 0
    return metrics


def _worlds(content: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """Yields the mean return, with its interval over episodes, in each changed world in which a run was tested."""
    for name, found in content.get("changed", {}).items():
        low, high = found["interval"]
        yield {"world": name, "return": found["return"], "low": low, "high": high}


def _curve(path: Path) -> Iterable[dict[str, str]]:
    """Yields epoch, gradient step, rollout steps so far and validation returns of each epoch of a run."""
    if not path.is_file():
        return
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield {
                "epoch": row["epoch"],
                "step": row["step"],
                "rollout_steps": f"{float(steps):.0f}" if (steps := row.get("train/steps")) else "",
                "return": row.get("eval/return") or "",
                "estimate": row.get("eval/estimate") or "",
            }
