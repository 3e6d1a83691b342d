"""The tables of a report, as text in cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from momalit.studies.load_results import Place, Results, name_of, values
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

OWN = "MOMA-PPO"
REFERENCES = (
    ("return_random", "random actions"),
    ("return_data", "mean of the data"),
    ("return_data_top", "best tenth of the data"),
    ("return_expert", "expert"),
)


@dataclass(frozen=True)
class Table:
    """A table; cells of all columns but the first are numbers.

    Args:
        title: what it is about.
        header: names of the columns.
        rows: text of every cell.
        best: numbers of the rows to stress.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    best: Sequence[int] = ()


def group_table(results: Results, place: Place) -> Table:
    """What every method reaches in one group; columns that nobody has a value for are left out."""
    methods = results.methods_at(place)
    header = ["method", "mean", "IQM", "95 % interval", "every seed", "best checkpoint"]
    header += ["imagined − real", "distance", "minutes"]
    rows = []
    means = []
    for method in methods:
        last = results.scores(place, method, "return_last")
        means.append(last.mean())
        promised = [
            row["imagined_last"] - row["return_last"]
            for row in results.of(place, method)
            if row.get("imagined_last") is not None
        ]
        distance = results.scores(place, method, "distance")
        seconds = results.scores(place, method, "wall_clock_seconds")
        rows.append(
            [
                method,
                _number(last.mean()),
                _number(interquartile_mean(last)),
                _over_seeds([last]),
                ", ".join(_number(value) for value in last),
                _number(results.scores(place, method, "return_best").mean()),
                _signed(np.mean(promised)) if promised else "",
                f"{distance.mean():.2f}" if len(distance) else "",
                f"{seconds.mean() / 60:.1f}" if len(seconds) else "",
            ]
        )
    everybody = results.of(place)
    for column, label in REFERENCES:
        if len(found := values(everybody, column)):
            rows.append([f"*{label}*", _number(found.mean()), *[""] * (len(header) - 2)])
    best = [i for i, mean in enumerate(means) if _number(mean) == _number(max(means))]
    return _without_empty(Table(name_of(place), header, rows, best))


def pooled_table(results: Results) -> Table | None:
    """Normalised scores over all groups; None where there is one group, or a method lacks some."""
    places, methods = results.places, results.methods
    scores = {m: [results.scores(place, m, "normalized_last") for place in places] for m in methods}
    full = [m for m in methods if all(len(group) for group in scores[m])]
    if len(places) < 2 or len(full) < 2:
        return None
    rows = [
        [
            method,
            f"{pooled_mean(scores[method]):.2f}",
            _over_seeds(scores[method], digits=2),
            f"{pooled_interquartile_mean(scores[method]):.2f}",
            _over_seeds(scores[method], pooled_interquartile_mean, 2),
        ]
        for method in full
    ]
    best = [i for i, row in enumerate(rows) if float(row[1]) == max(float(other[1]) for other in rows)]
    header = ["method", "mean", "95 % interval", "IQM", "95 % interval"]
    return Table(f"All {len(places)} groups, normalised scores", header, rows, best)


def improvement_table(results: Results) -> Table | None:
    """Probability that the study's own method improves on each other one.

    Returns:
        None where there is no other, or one run of each: which of two is higher is no probability.
    """
    ours = OWN if OWN in results.methods else results.methods[0]
    rows = []
    for method in results.methods:
        places = [p for p in results.places if {ours, method} <= set(results.methods_at(p))]
        if method == ours or not places:
            continue
        x, y = ([results.scores(place, m, "return_last") for place in places] for m in (ours, method))
        if all(len(group) < 2 for group in (*x, *y)):
            continue
        rows.append(
            [method, f"{probability_of_improvement(x, y):.2f}", _span(improvement_interval(x, y), 2), str(len(places))]
        )
    if not rows:
        return None
    header = [f"{ours} over", "probability", "95 % interval", "groups"]
    return Table("Probability of improvement", header, rows)


def cross_play_table(results: Results) -> Table | None:
    """Teams as trained and stitched, of every group and method; None where none was played."""
    rows = []
    for place in results.places:
        for method in results.methods_at(place):
            own, stitched = (results.team_scores(place, method, kind) for kind in ("self", "cross"))
            if len(own) and len(stitched):
                rows.append(
                    [
                        name_of(place),
                        method,
                        _number(own.mean()),
                        _number(stitched.mean()),
                        _span(bootstrap_interval([stitched])),
                        str(len(stitched)),
                    ]
                )
    header = ["group", "method", "own teams", "stitched teams", "95 % interval", "stitched"]
    return Table("Cross-play", header, rows) if rows else None


def all_tables(results: Results) -> Iterator[Table]:
    """Every table that the results allow, group by group first."""
    for place in results.places:
        yield group_table(results, place)
    for make in (pooled_table, improvement_table, cross_play_table):
        table = make(results)
        if table is not None:
            yield table


def _without_empty(table: Table) -> Table:
    kept = [i for i in range(len(table.header)) if i == 0 or any(row[i] for row in table.rows)]
    rows = [[row[i] for i in kept] for row in table.rows]
    return Table(table.title, [table.header[i] for i in kept], rows, table.best)


def _number(value: float | Scores) -> str:
    """Three or four significant digits: returns are told apart no better than that."""
    value = float(value)
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}"
    return text.replace("-", "−")


def _signed(value: float | Scores) -> str:
    text = _number(value)
    return text if text.startswith("−") else f"+{text}"


def _over_seeds(groups: Sequence[Scores], statistic: Statistic = pooled_mean, digits: int | None = None) -> str:
    """The interval over seeds; nothing where no group has two."""
    if all(len(group) < 2 for group in groups):
        return ""
    return _span(bootstrap_interval(groups, statistic), digits)


def _span(interval: tuple[float, float], digits: int | None = None) -> str:
    low, high = (_number(v) if digits is None else f"{v:.{digits}f}".replace("-", "−") for v in interval)
    return f"{low} to {high}"
