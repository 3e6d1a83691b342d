"""Reads a study's tidy files."""

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
from momalit.studies.write_results import CROSS_PLAY, CURVES, RUNS, STUDY

Row = Mapping[str, Any]
Place = tuple[str, str, str]  # task, dataset, setting

TEXT = ("study", "task", "dataset", "setting", "method", "seeds", "kind", "deterministic", "momalit", "torch", "mujoco")
NEEDED = {
    RUNS: ("task", "dataset", "method", "seed", "return_last", "return_best"),
    CURVES: ("task", "dataset", "method", "seed", "epoch", "step", "return"),
    CROSS_PLAY: ("task", "dataset", "method", "seeds", "kind", "return"),
}


@dataclass(frozen=True)
class Results:
    """A study's results.

    Args:
        runs: rows of ``results.csv``, numbers as floats and None where there is none.
        curves: rows of ``curves.csv``.
        teams: rows of ``cross_play.csv``.
        about: what the study file says.
    """

    runs: Sequence[Row]
    curves: Sequence[Row] = ()
    teams: Sequence[Row] = ()
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def methods(self) -> list[str]:
        """Every method, in the order of the file."""
        return list(dict.fromkeys(row["method"] for row in self.runs))

    @property
    def places(self) -> list[Place]:
        """Every task, dataset and setting, in the order of the file."""
        return list(dict.fromkeys(place_of(row) for row in self.runs))

    def panel_name(self, place: Place) -> str:
        """A group in a figure: the parts of its name that tell it from the others."""
        varies = [len({other[i] for other in self.places}) > 1 for i in range(len(place))]
        return ", ".join(part for part, tells in zip(place, varies, strict=True) if part and tells) or name_of(place)

    def of(self, place: Place, method: str | None = None, rows: Sequence[Row] | None = None) -> list[Row]:
        """The rows of one group, and of one method in it; rows of ``runs`` by default."""
        chosen = self.runs if rows is None else rows
        return [row for row in chosen if place_of(row) == place and method in (None, row["method"])]

    def scores(self, place: Place, method: str, column: str) -> Scores:
        """The values of a column over seeds, ``(N,)``, without those that are missing."""
        return values(self.of(place, method), column)

    def team_scores(self, place: Place, method: str, kind: str) -> Scores:
        """Returns of the teams of a kind, ``self`` or ``cross``, ``(N,)``."""
        return values([row for row in self.of(place, method, self.teams) if row["kind"] == kind], "return")

    def methods_at(self, place: Place) -> list[str]:
        """The methods that were run in a group."""
        there = {row["method"] for row in self.of(place)}
        return [method for method in self.methods if method in there]


def place_of(row: Row) -> Place:
    """Which group a row belongs to."""
    return row["task"], row["dataset"], row.get("setting") or ""


def name_of(place: Place) -> str:
    """A group as people call it."""
    return ", ".join(part for part in place if part)


def values(rows: Iterable[Row], column: str) -> Scores:
    """A column's values ``(N,)``, without those that are missing."""
    return np.array([row[column] for row in rows if row.get(column) is not None], float)


def read_results(directory: Path) -> Results:
    """Reads ``results.csv`` and, where they are, ``curves.csv``, ``cross_play.csv`` and ``study.yaml``.

    Raises:
        UserError: naming the file, and the row and column.
    """
    runs = _table(directory / RUNS)
    if not runs:
        raise UserError(f"{directory / RUNS}: found no runs, expected at least one")
    seen: dict[tuple[Any, ...], int] = {}
    for number, row in enumerate(runs, 2):
        key = (*place_of(row), row["method"], row["seed"])
        if key in seen:
            raise UserError(f"{directory / RUNS}: rows {seen[key]} and {number} are the same run: {row['method']}")
        seen[key] = number
    curves, teams = (_table(directory / name, optional=True) for name in (CURVES, CROSS_PLAY))
    return Results(runs, curves, teams, _about(directory))


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
    missing = [column for column in NEEDED[path.name] if column not in columns]
    if missing:
        raise UserError(f"{path}: column {missing[0]} is missing, found {', '.join(columns) or 'nothing'}")
    return [_parsed(path, number, row) for number, row in enumerate(rows, 2)]


def _parsed(path: Path, number: int, row: Mapping[str, str | None]) -> Row:
    found: dict[str, Any] = {}
    for column, value in row.items():
        if column is None or column in TEXT:
            found[str(column)] = value or ""
            continue
        try:
            found[column] = float(value) if value else None
        except ValueError:
            known = column in {name for names in NEEDED.values() for name in names}
            if known or column.startswith(("return", "normalized", "imagined", "distance")):
                raise UserError(f"{path}, row {number}: {column}: found {value!r}, expected a number") from None
            found[column] = value
    for column in NEEDED[path.name]:
        if column not in TEXT and (found[column] is None or not math.isfinite(found[column])):
            raise UserError(f"{path}, row {number}: {column}: found {row[column]!r}, expected a number")
    return found


def _about(directory: Path) -> dict[str, Any]:
    path = directory / STUDY
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not valid YAML") from error
    return content if isinstance(content, dict) else {}
