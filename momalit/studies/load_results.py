"""Reads the result files of a study."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from momalit.core.errors import UserError
from momalit.studies.statistics import Scores
from momalit.studies.write_results import CHANGED, CROSS_PLAY, CURVES, RUNS, STUDY, WITHOUT_ENVIRONMENT

Row = Mapping[str, Any]
Group = tuple[str, str, str]  # task, dataset, setting

TEXT = ("study", "task", "dataset", "setting", "method", "seeds", "kind", "world", "deterministic", "momalit", "torch",
        "mujoco")  # fmt: skip
REQUIRED = {
    RUNS: ("task", "dataset", "method", "seed", "return_last", "return_best"),
    CURVES: ("task", "dataset", "method", "seed", "epoch", "step", "return"),
    CROSS_PLAY: ("task", "dataset", "method", "seeds", "kind", "return"),
    CHANGED: ("task", "dataset", "method", "seed", "world", "return"),
}


@dataclass(frozen=True)
class Results:
    """The results of a study. A group is a combination of task, dataset and setting.

    Args:
        runs: rows of ``results.csv``. Numbers are floats, and missing values are None.
        curves: rows of ``curves.csv``.
        teams: rows of ``cross_play.csv``.
        study_file: contents of ``study.yaml``.
        worlds: rows of ``changed.csv``.
    """

    runs: Sequence[Row]
    curves: Sequence[Row] = ()
    teams: Sequence[Row] = ()
    study_file: Mapping[str, Any] = field(default_factory=dict)
    worlds: Sequence[Row] = ()

    @property
    def methods(self) -> list[str]:
        """All methods, in the order of the file."""
        return list(dict.fromkeys(row["method"] for row in self.runs))

    @property
    def groups(self) -> list[Group]:
        """All groups, in the order of the file."""
        return list(dict.fromkeys(group_of(row) for row in self.runs))

    def panel_title(self, group: Group) -> str:
        """Returns the title of a group's panel: the parts of its name that differ between groups."""
        varies = [len({other[i] for other in self.groups}) > 1 for i in range(len(group))]
        return ", ".join(part for part, shown in zip(group, varies, strict=True) if part and shown) or group_name(group)

    def select(self, group: Group, method: str | None = None, rows: Sequence[Row] | None = None) -> list[Row]:
        """Returns the rows of a group, and optionally of one method only. The default for ``rows`` is ``runs``."""
        rows = self.runs if rows is None else rows
        return [row for row in rows if group_of(row) == group and method in (None, row["method"])]

    def scores(self, group: Group, method: str, column: str) -> Scores:
        """Returns the values of a column over seeds, ``(N,)``, without missing ones."""
        return column_values(self.select(group, method), column)

    def team_scores(self, group: Group, method: str, kind: str) -> Scores:
        """Returns the return of each same-seed team (kind ``self``) or cross-play team (``cross``), ``(N,)``."""
        return column_values([row for row in self.select(group, method, self.teams) if row["kind"] == kind], "return")

    def methods_in(self, group: Group) -> list[str]:
        """Returns the methods with runs in a group."""
        present = {row["method"] for row in self.select(group)}
        return [method for method in self.methods if method in present]


def group_of(row: Row) -> Group:
    """Returns the group of a row."""
    return row["task"], row["dataset"], row.get("setting") or ""


def group_name(group: Group) -> str:
    """Returns the full name of a group."""
    return ", ".join(part for part in group if part)


def column_values(rows: Iterable[Row], column: str) -> Scores:
    """Returns a column's values ``(N,)``, without missing ones."""
    return np.array([row[column] for row in rows if row.get(column) is not None], float)


def read_results(directory: Path) -> Results:
    """Reads ``results.csv`` and, if they exist, the other files of a study.

    Raises:
        UserError: a file is missing or invalid. The message has the file, and the row and column if known.
    """
    runs = _table(directory / RUNS)
    if not runs:
        raise UserError(f"{directory / RUNS}: found no runs, expected at least one")
    seen: dict[tuple[Any, ...], int] = {}
    for number, row in enumerate(runs, 2):
        key = (*group_of(row), row["method"], row["seed"])
        if key in seen:
            raise UserError(f"{directory / RUNS}: rows {seen[key]} and {number} are the same run: {row['method']}")
        seen[key] = number
    curves, teams, worlds = (_table(directory / name, optional=True) for name in (CURVES, CROSS_PLAY, CHANGED))
    return Results(runs, curves, teams, _study_file(directory), worlds)


def _table(path: Path, optional: bool = False) -> list[Row]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            columns, rows = reader.fieldnames or [], list(reader)
    except FileNotFoundError:
        if optional:
            return []
        raise UserError(f"{path}: no such file, expected a study's results (python main.py study FILE)") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as CSV ({error})") from error
    missing = [column for column in REQUIRED[path.name] if column not in columns]
    if missing:
        raise UserError(f"{path}: column {missing[0]} is missing, found {', '.join(columns) or 'nothing'}")
    if path.name == RUNS and rows and not any(row["return_last"] for row in rows):
        raise UserError(
            f"{path}: these runs have no real returns, because {WITHOUT_ENVIRONMENT}, so there is nothing to compare;"
            " the command estimate judges teams from data alone"
        )
    return [_parse_row(path, number, row) for number, row in enumerate(rows, 2)]


def _parse_row(path: Path, number: int, row: Mapping[str, str | None]) -> Row:
    parsed: dict[str, Any] = {}
    for name, value in row.items():
        # Until 0.2 this was the return in the world model, not corrected by held-out data, and called "imagined".
        column = name and name.replace("imagined", "estimate")
        if column is None or column in TEXT:
            parsed[str(column)] = value or ""
            continue
        try:
            parsed[column] = float(value) if value else None
        except ValueError:
            required = column in {name for names in REQUIRED.values() for name in names}
            if required or column.startswith(("return", "normalized", "estimate", "distance")):
                raise UserError(f"{path}, row {number}: {column}: found {value!r}, expected a number") from None
            parsed[column] = value
    for column in REQUIRED[path.name]:
        if column not in TEXT and (parsed[column] is None or not math.isfinite(parsed[column])):
            raise UserError(f"{path}, row {number}: {column}: found {row[column]!r}, expected a number")
    return parsed


def _study_file(directory: Path) -> dict[str, Any]:
    path = directory / STUDY
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not valid YAML") from error
    return content if isinstance(content, dict) else {}
