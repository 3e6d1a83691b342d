"""What a study's results say along one of its axes or in changed worlds, and how soon a score is reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from momalit.studies.claims import TREND_AXES, read_trend_keys
from momalit.studies.load_results import Results, Row
from momalit.studies.statistics import Scores
from momalit.studies.write_results import STUDY


@dataclass(frozen=True)
class Trend:
    """Runs that differ in one axis, in their method and in their seed.

    Args:
        name: the levels of the other axes, as far as they vary in the study; may be empty.
        levels: the levels of the axis, in the study's order.
        methods: the methods, in the study's order.
        rows: rows of ``results.csv`` by method and level.
    """

    name: str
    levels: list[str]
    methods: list[str]
    rows: Mapping[tuple[str, str], list[Row]]

    def scores(self, method: str, level: str) -> Scores:
        """Returns the last checkpoint's return of each seed, ``(N,)``."""
        return np.array([row["return_last"] for row in self.rows.get((method, level), ())], float)

    def reference(self, column: str) -> Scores:
        """Returns the mean of a reference return at each level ``(L,)``, NaN where there is none."""
        found: dict[str, list[float]] = {level: [] for level in self.levels}
        for (_, level), rows in self.rows.items():
            found[level] += [row[column] for row in rows if row.get(column) is not None]
        return np.array([np.mean(values) if values else np.nan for values in found.values()])


def trends(results: Results) -> list[Trend]:
    """Returns the trends along the study's ``x_axis``; none if the study names no axis."""
    axis, _ = read_trend_keys(Path(STUDY), results.study_file)
    if axis is None:
        return []
    others = [name for name in TREND_AXES if name != axis and len({row.get(name) for row in results.runs}) > 1]
    parts: dict[tuple[str, ...], list[Row]] = {}
    for row in results.runs:
        parts.setdefault(tuple(row.get(name) or "" for name in others), []).append(row)
    found = []
    for names, rows in parts.items():
        levels = list(dict.fromkeys(row.get(axis) or "" for row in rows))
        methods = [method for method in results.methods if any(row["method"] == method for row in rows)]
        by_place: dict[tuple[str, str], list[Row]] = {}
        for row in rows:
            by_place.setdefault((row["method"], row.get(axis) or ""), []).append(row)
        found.append(Trend(", ".join(name for name in names if name), levels, methods, by_place))
    return found


UNCHANGED = "unchanged"


def changed_worlds(results: Results) -> list[Trend]:
    """Returns each group's returns in the world of its data and in changed ones; none without changed worlds."""
    found = []
    for group in results.groups:
        worlds = results.select(group, rows=results.worlds)
        methods = [method for method in results.methods_in(group) if any(row["method"] == method for row in worlds)]
        rows: dict[tuple[str, str], list[Row]] = {(m, UNCHANGED): results.select(group, m) for m in methods}
        for row in worlds:
            rows.setdefault((row["method"], row["world"]), []).append({"return_last": row["return"]})
        if worlds:
            levels = [UNCHANGED, *dict.fromkeys(row["world"] for row in worlds)]
            found.append(Trend(results.panel_title(group), levels, methods, rows))
    return found


def first_looks(results: Results, reach: float) -> dict[tuple[Any, ...], Row]:
    """Returns, for each run that reached a score in a validation, the first row of its curve that shows it.

    Args:
        results: the study's results.
        reach: the score, normalised so that random actions have 0 and the expert 1.

    Returns:
        the rows of ``curves.csv`` by task, dataset, setting, method and seed.
    """
    scale = {run_key(row): (row.get("return_random"), row.get("return_expert")) for row in results.runs}
    found: dict[tuple[Any, ...], Row] = {}
    for row in results.curves:  # ordered by epoch within a run
        random, expert = scale.get(run_key(row), (None, None))
        if random is None or expert is None or run_key(row) in found:
            continue
        if row["return"] >= random + reach * (expert - random):
            found[run_key(row)] = row
    return found


def run_key(row: Row) -> tuple[Any, ...]:
    """Identifies a run: task, dataset, setting, method and seed."""
    return (row["task"], row["dataset"], row.get("setting") or "", row["method"], row["seed"])
