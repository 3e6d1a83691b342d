"""The page of a run: its results, how they came about, and where imagination and reality part."""

from __future__ import annotations

import base64
import csv
import html
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from momalit.core.errors import UserError
from momalit.studies.estimates import WELL_EXPLAINED, poorly_explained
from momalit.studies.plots import Lines, curves, run_figures
from momalit.studies.report_page import Figure, plain_page
from momalit.studies.tables import REFERENCES, Table, drop_empty_columns, format_number
from momalit.training.run_directory import write_text

PAGE, FIGURES = "report.html", "figures.json"
# What the figures of training show: title, and the columns of metrics.csv by label.
PANELS = (
    ("return", {"estimate": "eval/estimate", "in the environment": "eval/return"}),
    ("reward of an imagined step", {"": "train/reward"}),
    ("uncertainty of imagined steps", {"": "imagined/uncertainty"}),
    ("share of rollouts that stop or end", {"too uncertain": "imagined/stopped", "terminated": "imagined/terminated"}),
    ("explained variance of the values", {"": "value/explained_variance"}),
    ("KL divergence per iteration", {"": "policy/kl"}),
)
STAGES = (("world_model", "error on held-out steps, world model", "val/error"),)


def is_run(directory: Path) -> bool:
    """Whether a directory has the results of a run."""
    return (directory / "run.json").is_file() and (directory / "results.json").is_file()


def write_run_page(directory: Path, output: Path | None = None, title: str | None = None) -> Path:
    """Writes ``report.html``, which needs no other file, from the files of a run, and returns its path.

    Args:
        directory: the run's directory.
        output: folder of the page; None for the run's directory.
        title: heading of the page; None for the run's method, dataset and seed.

    Raises:
        UserError: ``results.json`` is missing or invalid.
    """
    results = _json(directory / "results.json")
    if not results:
        raise UserError(f"{directory / 'results.json'}: cannot be read, expected the results of a finished run")
    record = _json(directory / "run.json")
    name = f"{results.get('method')} on {results.get('dataset') or results.get('task')}, seed {results.get('seed')}"
    tables = [_results_table(results)]
    if check := results.get("model_check"):
        tables += [_over_time(check), _bias(check)]
    facts, figures = list(_facts(results, record)), list(_figures(directory))
    text = plain_page(title or name, facts, tables, figures, _end(directory))
    path = (output or directory) / PAGE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return path


def _facts(results: Mapping[str, Any], record: Mapping[str, Any]) -> Iterator[str]:
    dataset = record.get("dataset") or {}
    minutes = (results.get("wall_clock_seconds") or 0) / 60
    env = dataset.get("env")
    settings = "".join(f", {name} {value}" for name, value in env.items()) if isinstance(env, Mapping) else ""
    data = f"Dataset {dataset['dataset']}" if dataset.get("dataset") else f"Environment {env}"
    yield (f"{data}{settings} (fingerprint {str(dataset.get('fingerprint'))[:16]}). Trained in {minutes:.1f} minutes.")
    if results.get("return_last") is None:
        yield (
            "No environment was used: returns are estimates from the world model and held-out data. What they say about"
            " steps outside the data is a guess."
        )
    if symmetries := results.get("symmetries"):
        yield f"The world model saw each step of the data through one of the task's {symmetries} symmetries, at random."
    explained = results.get("reward_explained")
    if explained is not None and explained < WELL_EXPLAINED:
        yield f"{poorly_explained(explained)}."
    versions = results.get("versions") or {}
    yield ", ".join(f"{name} {version}" for name, version in versions.items())


def _results_table(results: Mapping[str, Any]) -> Table:
    rows = []
    for column, label in REFERENCES:
        if isinstance(results.get(column), int | float):
            rows.append([f"*{label}*", format_number(results[column]), "", "", "", ""])
    for which in ("last", "best"):
        cells = []
        for figure in ("return", "estimate"):
            value, interval = results.get(f"{figure}_{which}"), results.get(f"{figure}_{which}_interval")
            cells.append("" if value is None else format_number(value))
            cells.append(f"{format_number(interval[0])} to {format_number(interval[1])}" if interval else "")
        outside = results.get(f"outside_{which}")
        rows.append([f"{which} checkpoint", *cells, "" if outside is None else f"{outside:.0%}"])
    for name, found in results.get("changed", {}).items():
        low, high = found["interval"]
        interval = f"{format_number(low)} to {format_number(high)}"
        rows.append([f"last checkpoint, {name}", format_number(found["return"]), interval, "", "", ""])
    best = [number for number, row in enumerate(rows) if row[0] == "last checkpoint"]
    header = ["team", "real return", "95 % interval", "estimate", "its 95 % interval", "outside the data"]
    return drop_empty_columns(Table("Return", header, rows, best))


def _over_time(check: Mapping[str, Any]) -> Table:
    rows = [
        [
            f"{part['from']} to {part['to']}",
            f"{part['real_reward']:.3f}",
            f"{part['imagined_reward']:.3f}",
            f"{part['real_running']:.0%}",
            f"{part['imagined_running']:.0%}",
        ]
        for part in check["over_time"]
    ]
    header = ["steps", "real reward", "imagined reward", "real running", "imagined running"]
    return Table("Imagination and reality over time, last checkpoint", header, rows)


def _bias(check: Mapping[str, Any]) -> Table:
    path, held_out = check["path"], check["held_out"]
    rows = [[name, f"{path[name]:.3g}", f"{held_out[name]:.3g}"] for name in ("error", "uncertainty")]
    rows += [
        [f"bias of {name}", f"{value:+.3f}", f"{held_out['bias'].get(name, 0.0):+.3f}"]
        for name, value in path["bias"].items()
    ]
    header = ["world model", "on the team's path", "on held-out data"]
    return Table("Errors of the world model (in standard deviations of a step's change)", header, rows)


def _figures(directory: Path) -> Iterator[Figure]:
    rows = _metrics(directory / "metrics.csv")
    panels = [(title, _lines(rows, columns)) for title, columns in PANELS]
    for stage, title, column in STAGES:
        panels.append((title, _lines(_metrics(directory / stage / "metrics.csv"), {"": column})))
    panels = [(title, lines) for title, lines in panels if lines]
    if panels:
        yield Figure("training", "Training, by epoch.", curves(panels))
    if data := _json(directory / FIGURES):
        for name, caption, drawn in run_figures(data):
            yield Figure(name, caption, drawn)


def _lines(rows: Sequence[Mapping[str, str]], columns: Mapping[str, str]) -> Lines:
    lines: dict[str, list[list[float]]] = {}
    for label, column in columns.items():
        found = [row for row in rows if row.get(column)]
        if found:
            interval = [name for name in (f"{column}_low", f"{column}_high") if found[0].get(name)]
            epochs = [float(row["epoch"]) + 1 for row in found]
            lines[label] = [epochs, *([float(row[name]) for row in found] for name in (column, *interval))]
    return lines


def _metrics(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _end(directory: Path) -> list[str]:
    end = []
    for film in sorted((directory / "videos").glob("*.gif")):
        content = base64.b64encode(film.read_bytes()).decode()
        end += ["<h2>Film</h2>", f'<p><img src="data:image/gif;base64,{content}" alt="An episode of the team"></p>']
    config = directory / "config.yaml"
    if config.is_file():
        text = html.escape(config.read_text(encoding="utf-8", errors="replace"))
        end += ["<h2>Configuration</h2>", f"<details><summary>config.yaml</summary><pre>{text}</pre></details>"]
    return end


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
