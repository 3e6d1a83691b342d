"""The tables of a report. Cells are formatted text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from momalit.studies.claims import read_claims, read_trend_keys
from momalit.studies.grid import ORDER
from momalit.studies.load_results import Group, Results, column_values, group_name
from momalit.studies.statistics import (
    Scores,
    Statistic,
    bootstrap_interval,
    improvement_interval,
    interquartile_mean,
    pooled_interquartile_mean,
    pooled_mean,
    probability_of_improvement,
)
from momalit.studies.trends import changed_worlds, first_looks, run_key, trends
from momalit.studies.write_results import STUDY

OWN_METHOD = "MOMA-PPO"
REFERENCES = (
    ("return_random", "random actions"),
    ("return_data", "mean of the data"),
    ("return_data_top", "best tenth of the data"),
    ("return_expert", "expert"),
)


@dataclass(frozen=True)
class Table:
    """A table with labels in the first column and numbers in the others.

    Args:
        title: title of the table.
        header: names of the columns.
        rows: text of all cells.
        best: indices of the rows to highlight.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    best: Sequence[int] = ()


def group_table(results: Results, group: Group) -> Table:
    """Returns the results of all methods in one group. Columns without any value are left out."""
    methods = results.methods_in(group)
    header = ["method", "mean", "IQM", "95 % interval", "per seed", "best checkpoint"]
    header += ["estimate − real", "distance", "minutes"]
    rows = []
    means = []
    for method in methods:
        last = results.scores(group, method, "return_last")
        means.append(last.mean())
        model_errors = [
            row["estimate_last"] - row["return_last"]
            for row in results.select(group, method)
            if row.get("estimate_last") is not None
        ]
        distance = results.scores(group, method, "distance")
        seconds = results.scores(group, method, "wall_clock_seconds")
        rows.append(
            [
                method,
                format_number(last.mean()),
                format_number(interquartile_mean(last)),
                _format_bootstrap([last]),
                ", ".join(format_number(value) for value in last),
                format_number(results.scores(group, method, "return_best").mean()),
                _format_signed(np.mean(model_errors)) if model_errors else "",
                f"{distance.mean():.2f}" if len(distance) else "",
                f"{seconds.mean() / 60:.1f}" if len(seconds) else "",
            ]
        )
    group_rows = results.select(group)
    for column, label in REFERENCES:
        if len(references := column_values(group_rows, column)):
            rows.append([f"*{label}*", format_number(references.mean()), *[""] * (len(header) - 2)])
    best = [i for i, mean in enumerate(means) if format_number(mean) == format_number(max(means))]
    return drop_empty_columns(Table(group_name(group), header, rows, best))


def pooled_table(results: Results) -> Table | None:
    """Returns normalised scores over all groups, for the methods with scores in every group.

    Returns:
        None if there are fewer than two groups or fewer than two such methods.
    """
    groups, methods = results.groups, results.methods
    scores = {m: [results.scores(group, m, "normalized_last") for group in groups] for m in methods}
    complete = [m for m in methods if all(len(group) for group in scores[m])]
    if len(groups) < 2 or len(complete) < 2:
        return None
    rows = [
        [
            method,
            f"{pooled_mean(scores[method]):.2f}",
            _format_bootstrap(scores[method], digits=2),
            f"{pooled_interquartile_mean(scores[method]):.2f}",
            _format_bootstrap(scores[method], pooled_interquartile_mean, 2),
        ]
        for method in complete
    ]
    best = [i for i, row in enumerate(rows) if float(row[1]) == max(float(other[1]) for other in rows)]
    header = ["method", "mean", "95 % interval", "IQM", "95 % interval"]
    return Table(f"All {len(groups)} groups, normalised scores", header, rows, best)


def improvement_table(results: Results) -> Table | None:
    """Returns the probability that MOMA-PPO, or else the study's first method, improves on each other method.

    Returns:
        None if there is no method to compare with, or if there is only one run of each method and group, since a
        single comparison is no estimate of a probability.
    """
    ours = OWN_METHOD if OWN_METHOD in results.methods else results.methods[0]
    rows = []
    for method in results.methods:
        groups = [p for p in results.groups if {ours, method} <= set(results.methods_in(p))]
        if method == ours or not groups:
            continue
        x, y = ([results.scores(group, m, "return_last") for group in groups] for m in (ours, method))
        if all(len(group) < 2 for group in (*x, *y)):
            continue
        rows.append(
            [
                method,
                f"{probability_of_improvement(x, y):.2f}",
                _format_interval(improvement_interval(x, y), 2),
                str(len(groups)),
            ]
        )
    if not rows:
        return None
    header = [f"{ours} over", "probability", "95 % interval", "groups"]
    return Table("Probability of improvement", header, rows)


def cross_play_table(results: Results) -> Table | None:
    """Returns the results of same-seed and cross-play teams for all groups and methods; None without cross-play."""
    rows = []
    for group in results.groups:
        for method in results.methods_in(group):
            same_seed, cross_play = (results.team_scores(group, method, kind) for kind in ("self", "cross"))
            if len(same_seed) and len(cross_play):
                rows.append(
                    [
                        group_name(group),
                        method,
                        format_number(same_seed.mean()),
                        format_number(cross_play.mean()),
                        _format_interval(bootstrap_interval([cross_play])),
                        str(len(cross_play)),
                    ]
                )
    header = ["group", "method", "same-seed teams", "cross-play teams", "95 % interval", "number of cross-play teams"]
    return Table("Cross-play", header, rows) if rows else None


def claims_table(results: Results) -> Table | None:
    """Returns what the study's file claims and whether it holds; None if it claims nothing."""
    claims = read_claims(Path(STUDY), results.study_file.get("claims"), ORDER)
    rows = []
    for claim in claims:
        found = [row for row in results.runs if claim.fits(row)]
        returns = column_values(found, "return_last")
        asked = [None if value is None else format_number(value) for value in (claim.mean, claim.every)]
        within = None if claim.estimate_within is None else f"{claim.estimate_within:.0%}"
        measured = ["", "", ""]
        verdict = "not measured"
        if found:
            interval = _format_bootstrap([returns])
            error = claim.estimate_error(found) if within else None
            estimate = "" if error is None else f"{error:.0%}" if math.isfinite(error) else "infinite"
            mean = f"{format_number(returns.mean())} ({interval})" if interval else format_number(returns.mean())
            measured = [mean, format_number(returns.min()), estimate]
            failed = claim.failures(found)
            verdict = (
                f"{'fails: ' + ', '.join(failed) if failed else 'holds'} ({len(found)} seed{'s' * (len(found) > 1)})"
            )
        pairs = zip((*asked, within), measured, strict=True)
        name = ", ".join(claim.where[axis] for axis in ORDER if axis in claim.where)
        rows.append([name, *(cell or "" for pair in pairs for cell in pair), verdict])
    header = ["claim", "mean asked", "mean", "every run asked", "least run", "estimate within", "estimate", "verdict"]
    return drop_empty_columns(Table("Claims", header, rows)) if rows else None


def trend_tables(results: Results) -> Iterator[Table]:
    """Yields tables of mean returns with intervals, by method and level of the study's ``x_axis`` or changed world."""
    for title, trend in [
        *(("Mean return", trend) for trend in trends(results)),
        *(("Mean return in changed worlds", trend) for trend in changed_worlds(results)),
    ]:
        rows = []
        for method in trend.methods:
            cells = []
            for level in trend.levels:
                scores = trend.scores(method, level)
                interval = _format_bootstrap([scores]) if len(set(scores)) > 1 else ""
                mean = format_number(scores.mean()) if len(scores) else ""
                cells.append(f"{mean} ({interval})" if interval else mean)
            rows.append([method, *cells])
        for column, label in REFERENCES:
            values = trend.reference(column)
            if not np.isnan(values).all():
                rows.append([f"*{label}*", *("" if np.isnan(value) else format_number(value) for value in values)])
        yield Table(f"{title}: {trend.name}" if trend.name else title, ["method", *trend.levels], rows)


def reach_table(results: Results) -> Table | None:
    """Returns how soon the runs show the score that the study's ``reach`` names; None if it names none.

    A run reaches it at its first validation with at least that score, so that the numbers are as coarse as the
    validations are far apart.
    """
    _, reach = read_trend_keys(Path(STUDY), results.study_file)
    if reach is None:
        return None
    found = first_looks(results, reach)
    rows = []
    for group in results.groups:
        for method in results.methods_in(group):
            runs = results.select(group, method)
            first = [found[run_key(row)] for row in runs if run_key(row) in found]
            steps = [row["step"] + 1 for row in first]  # Lightning counts from 0
            imagined = column_values(first, "rollout_steps")
            counts = [f"{np.median(numbers):,.0f}" if len(numbers) else "" for numbers in (steps, imagined)]
            rows.append([group_name(group), method, f"{len(first)} of {len(runs)}", *counts])
    header = ["group", "method", "runs", "gradient steps, median", "rollout steps, median"]
    return drop_empty_columns(Table(f"First validation with {reach:.0%} of the expert's score", header, rows))


def all_tables(results: Results) -> Iterator[Table]:
    """Yields all tables for which there are results: claims, trends, single groups, then comparisons."""
    claims = claims_table(results)
    if claims is not None:
        yield claims
    yield from trend_tables(results)
    reached = reach_table(results)
    if reached is not None:
        yield reached
    for group in results.groups:
        yield group_table(results, group)
    for make in (pooled_table, improvement_table, cross_play_table):
        table = make(results)
        if table is not None:
            yield table


def drop_empty_columns(table: Table) -> Table:
    """Returns the table without columns in which every row is empty. The first column stays."""
    columns = [i for i in range(len(table.header)) if i == 0 or any(row[i] for row in table.rows)]
    rows = [[row[i] for i in columns] for row in table.rows]
    return Table(table.title, [table.header[i] for i in columns], rows, table.best)


def format_number(value: float | Scores) -> str:
    """Formats a number with three or four significant digits. Returns are not more precise than that."""
    value = float(value)
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}"
    return text.replace("-", "−")


def _format_signed(value: float | Scores) -> str:
    text = format_number(value)
    return text if text.startswith("−") else f"+{text}"


def _format_bootstrap(groups: Sequence[Scores], statistic: Statistic = pooled_mean, digits: int | None = None) -> str:
    """Formats the interval over seeds; an empty string if no group has two seeds."""
    if all(len(group) < 2 for group in groups):
        return ""
    return _format_interval(bootstrap_interval(groups, statistic), digits)


def _format_interval(interval: tuple[float, float], digits: int | None = None) -> str:
    low, high = (format_number(v) if digits is None else f"{v:.{digits}f}".replace("-", "−") for v in interval)
    return f"{low} to {high}"
