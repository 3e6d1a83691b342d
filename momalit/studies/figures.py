"""The figures of a report as SVG. The same results give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from momalit.studies.load_results import Group, Results, Row, column_values
from momalit.studies.statistics import bootstrap_interval
from momalit.studies.trends import Trend, changed_worlds, trends

# The palette of Okabe and Ito, which colour-blind readers can distinguish, without black and yellow.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666")
STYLE = {
    "svg.hashsalt": "momalit",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "legend.frameon": False,
}
WIDTH = 8.0  # inches
CHARACTERS = 90  # that fit side by side below a figure
REFERENCES = (("return_data", "mean of the data", ":"), ("return_expert", "expert", "--"))
# References are drawn only up to this distance from the runs, as a multiple of the range of the runs.
MAX_REFERENCE_DISTANCE = 2.0


def figures(results: Results) -> Iterator[tuple[str, str, str]]:
    """Draws all figures for which there are results.

    Yields:
        name, caption and SVG of each figure.
    """
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]
        colour = {method: COLOURS[i % len(COLOURS)] for i, method in enumerate(results.methods)}
        if found := trends(results):
            yield (
                "trend",
                "Return of the last checkpoint: each seed (dots), mean over seeds (lines) and 95 % interval (bands).",
                svg(_trends(found, colour)),
            )
        if worlds := changed_worlds(results):
            yield (
                "changed",
                "Return of the last checkpoint in the world of its data and in changed ones: each seed (dots), mean"
                " over seeds (lines) and 95 % interval (bands).",
                svg(_trends(worlds, colour)),
            )
        yield (
            "returns",
            "Return of the last checkpoint: each seed (dots), mean over seeds (diamonds) and 95 % interval (bars).",
            svg(_returns(results, colour)),
        )
        if results.curves:
            yield (
                "curves",
                "Return on the validation episodes during training: each seed (thin) and mean over seeds (thick).",
                svg(_curves(results, colour)),
            )
        if any(row.get("normalized_last") is not None for row in results.runs):
            yield (
                "profile",
                "Fraction of a method's runs whose normalised score exceeds a threshold.",
                svg(_profile(results, colour)),
            )
        if results.teams:
            yield (
                "cross_play",
                "Return of teams from the same seed (filled) and of cross-play teams from different seeds (open), with"
                " 95 % intervals over teams.",
                svg(_cross_play(results, colour)),
            )
            if all(str(row["seeds"]).count("+") == 1 for row in results.teams):
                yield (
                    "cross_play_seeds",
                    "Return of each team, by the training seeds of its first agent (rows) and second agent (columns).",
                    svg(_matrices(results)),
                )


def _panels(results: Results, groups: Sequence[Group], height: float) -> tuple[Figure, list[tuple[Group, Axes]]]:
    """Returns a figure and one titled panel per group, at most three in a row."""
    columns = min(len(groups), 3)
    rows = -(-len(groups) // columns)
    figure = Figure(figsize=(WIDTH, rows * height + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for spare in axes[len(groups) :]:
        spare.axis("off")
    # Number of characters at font size 10 that fit above a panel, next to the methods' names on the left.
    max_characters = 12 * (WIDTH / columns - 0.9)
    for group, panel in zip(groups, axes, strict=False):
        name = results.panel_title(group)
        panel.set_title(name, fontsize=10 * min(1.0, max_characters / max(len(name), 1)))
    return figure, list(zip(groups, axes, strict=False))


def _trends(found: Sequence[Trend], colour: Mapping[str, str]) -> Figure:
    columns = min(len(found), 2)
    figure = Figure(figsize=(WIDTH, -(-len(found) // columns) * 2.5 + 0.3), layout="constrained")
    panels = figure.subplots(-(-len(found) // columns), columns, squeeze=False).ravel()
    for spare in panels[len(found) :]:
        spare.axis("off")
    for trend, axes in zip(found, panels, strict=False):
        places = np.arange(len(trend.levels))
        shift = 0.24 / max(len(trend.methods), 1)
        for number, method in reversed(list(enumerate(trend.methods))):  # so that the first method is drawn on top
            scores = [trend.scores(method, level) for level in trend.levels]
            there = [place for place in places if len(scores[place])]
            at = places + (number - (len(trend.methods) - 1) / 2) * shift
            bounds = np.array([bootstrap_interval([scores[place]]) for place in there])
            axes.fill_between(at[there], bounds[:, 0], bounds[:, 1], color=colour[method], alpha=0.15, lw=0)
            axes.plot(at[there], [scores[place].mean() for place in there], color=colour[method], lw=1.6)
            for place in there:
                axes.plot([at[place]] * len(scores[place]), scores[place], "o", ms=3, color=colour[method], mec="none")
        for column, label, style in REFERENCES:
            reference = trend.reference(column)
            if np.isfinite(reference).sum() > 1:  # a changed world has none, and one point is no line
                axes.plot(places, reference, color="#777777", lw=1, ls=style, label=label, zorder=0)
        axes.set_title(trend.name)
        axes.set_xlim(-0.5, len(places) - 0.5)
        crowded = max(map(len, trend.levels)) * len(places) * columns > CHARACTERS
        axes.set_xticks(places, trend.levels, rotation=20 if crowded else 0, ha="right" if crowded else "center")
        axes.grid(axis="y", color="#e4e4e4", lw=0.6)
    for axes in panels[: len(found) : columns]:
        axes.set_ylabel("return")
    _legend(figure, list(panels[: len(found)]), _method_lines(colour))
    return figure


def _returns(results: Results, colour: Mapping[str, str]) -> Figure:
    rows = max(len(results.methods), 3)  # a panel for one or two would hardly be higher than its labels
    figure, panels = _panels(results, results.groups, 0.45 + 0.26 * rows)
    for group, axes in panels:
        methods = results.methods_in(group)
        for y, method in enumerate(methods):
            scores = results.scores(group, method, "return_last")
            low, high = bootstrap_interval([scores])
            axes.plot([low, high], [y, y], color=colour[method], lw=2.5, alpha=0.45, solid_capstyle="round")
            spread = np.linspace(-0.16, 0.16, len(scores)) if len(scores) > 1 else np.zeros(1)
            axes.plot(scores, y + spread, "o", ms=3, color=colour[method], alpha=0.75, mec="none")
            axes.plot(scores.mean(), y, "D", ms=5.5, color=colour[method], mec="white", mew=0.7)
        axes.set_yticks(range(len(methods)), methods)
        axes.set_ylim(len(methods) - 0.5, -0.5)
        axes.grid(axis="x", color="#e4e4e4", lw=0.6)
        axes.set_axisbelow(True)
        axes.margins(x=0.08)
        _references(axes.axvline, axes.get_xlim(), results.select(group))
        axes.set_xlabel("return")
    _legend(figure, [axes for _, axes in panels])
    return figure


def _curves(results: Results, colour: Mapping[str, str]) -> Figure:
    groups = [group for group in results.groups if results.select(group, rows=results.curves)]
    figure, panels = _panels(results, groups, 2.5)
    for group, axes in panels:
        for method in reversed(results.methods_in(group)):  # so that the first method is drawn on top
            rows = results.select(group, method, results.curves)
            if not rows:
                continue
            end = max(row["epoch"] for row in rows) + 1
            seeds = sorted({row["seed"] for row in rows})
            for seed in seeds:
                seed_rows = [row for row in rows if row["seed"] == seed]
                progress = [(row["epoch"] + 1) / end for row in seed_rows]
                axes.plot(progress, column_values(seed_rows, "return"), color=colour[method], lw=0.7, alpha=0.35)
            epochs = [e for e in sorted({r["epoch"] for r in rows}) if sum(r["epoch"] == e for r in rows) == len(seeds)]
            means = [column_values([row for row in rows if row["epoch"] == epoch], "return").mean() for epoch in epochs]
            axes.plot([(e + 1) / end for e in epochs], means, color=colour[method], lw=1.8, marker=".", ms=4)
        _references(axes.axhline, axes.get_ylim(), results.select(group))
        axes.grid(axis="y", color="#e4e4e4", lw=0.6)
        axes.xaxis.set_major_formatter(mpl.ticker.PercentFormatter(1.0))
        axes.set_xlabel("fraction of training")
    panels[0][1].set_ylabel("return")
    _legend(figure, [axes for _, axes in panels], _method_lines(colour))
    return figure


def _profile(results: Results, colour: Mapping[str, str]) -> Figure:
    figure = Figure(figsize=(WIDTH * 0.7, 2.9), layout="constrained")
    axes = figure.subplots()
    scores = {
        m: column_values([row for row in results.runs if row["method"] == m], "normalized_last")
        for m in results.methods
    }
    pooled = np.concatenate(list(scores.values()))
    low, high = min(0.0, float(pooled.min())), max(1.0, float(pooled.max()))
    threshold = np.linspace(low - 0.02, high + 0.02, 400)
    for method, method_scores in reversed(scores.items()):
        if len(method_scores):
            axes.step(
                threshold,
                (method_scores[None] > threshold[:, None]).mean(1),
                color=colour[method],
                lw=1.6,
                label=method,
            )
    axes.set_xlabel("normalised score (0: random actions, 1: expert)")
    axes.set_ylabel("fraction of runs above")
    axes.set_ylim(-0.02, 1.04)
    axes.grid(color="#e4e4e4", lw=0.6)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), reverse=True)
    return figure


def _cross_play(results: Results, colour: Mapping[str, str]) -> Figure:
    played_methods = list(dict.fromkeys(row["method"] for row in results.teams))
    groups = [group for group in results.groups if results.select(group, rows=results.teams)]
    figure, panels = _panels(results, groups, 0.45 + 0.28 * len(played_methods))
    for group, axes in panels:
        methods = [method for method in played_methods if results.select(group, method, results.teams)]
        for y, method in enumerate(methods):
            means = []
            for kind, offset in (("self", -0.14), ("cross", 0.14)):
                scores = results.team_scores(group, method, kind)
                if not len(scores):
                    continue
                low, high = bootstrap_interval([scores])
                fill = colour[method] if kind == "self" else "white"
                axes.plot([low, high], [y + offset] * 2, color=colour[method], lw=1.2, alpha=0.6)
                axes.plot(scores.mean(), y + offset, "o", ms=6, color=colour[method], mfc=fill, mew=1.3)
                means.append(scores.mean())
        axes.set_yticks(range(len(methods)), methods)
        axes.set_ylim(len(methods) - 0.5, -0.5)
        axes.grid(axis="x", color="#e4e4e4", lw=0.6)
        axes.set_axisbelow(True)
        axes.margins(x=0.08)
        axes.set_xlabel("return")
    marks = [
        mpl.lines.Line2D([], [], ls="", marker="o", color="#444444", label="same seed"),
        mpl.lines.Line2D([], [], ls="", marker="o", color="#444444", mfc="white", label="different seeds (cross-play)"),
    ]
    _legend(figure, [axes for _, axes in panels], marks)
    return figure


def _matrices(results: Results) -> Figure:
    methods = list(dict.fromkeys(row["method"] for row in results.teams))
    groups = [group for group in results.groups if results.select(group, rows=results.teams)]
    figure = Figure(figsize=(0.9 + 1.35 * len(methods), 0.6 + 1.35 * len(groups)), layout="constrained")
    grid = figure.subplots(len(groups), len(methods), squeeze=False)
    returns = column_values(results.teams, "return")
    image = None
    for row, group in enumerate(groups):
        for column, method in enumerate(methods):
            axes = grid[row, column]
            teams = results.select(group, method, results.teams)
            if not teams:
                axes.axis("off")
                continue
            names, table = _matrix(teams)
            image = axes.imshow(table, cmap="cividis", vmin=returns.min(), vmax=returns.max())
            axes.set_xticks(range(len(names)), names, fontsize=7)
            axes.set_yticks(range(len(names)), names, fontsize=7)
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            if row == 0:
                axes.set_title(method, fontsize=9)
            if column == 0:
                axes.set_ylabel(results.panel_title(group).replace(", ", "\n"), fontsize=8)
    if image is not None:
        figure.colorbar(image, ax=grid, label="return", shrink=0.7, pad=0.02)
    return figure


def _matrix(teams: Sequence[Row]) -> tuple[list[str], Any]:
    """Returns the names of the seeds, and the matrix of their pairs' returns, NaN if a pair was not evaluated."""
    names = sorted({name for row in teams for name in row["seeds"].split("+")}, key=lambda name: (len(name), name))
    table = np.full((len(names), len(names)), np.nan)
    for row in teams:
        first, second = row["seeds"].split("+")
        table[names.index(first), names.index(second)] = row["return"]
    return names, table


def _references(line: Any, limits: tuple[float, float], rows: Sequence[Row]) -> None:
    """Draws reference returns as lines, except those so far away that the differences between runs would disappear."""
    low, high = limits
    distance = MAX_REFERENCE_DISTANCE * (high - low)
    for column, label, style in REFERENCES:
        references = column_values(rows, column)
        if len(references) and low - distance <= references.mean() <= high + distance:
            line(references.mean(), color="#777777", lw=1, ls=style, label=label, zorder=0)


def _method_lines(colour: Mapping[str, str]) -> list[Any]:
    return [mpl.lines.Line2D([], [], color=each, lw=1.8, label=method) for method, each in colour.items()]


def _legend(figure: Figure, panels: Sequence[Axes], handles: Sequence[Any] = ()) -> None:
    """Adds one legend below all panels, with the given handles and all labelled lines of the panels."""
    named = dict(zip((handle.get_label() for handle in handles), handles, strict=True))
    for axes in panels:
        lines, names = axes.get_legend_handles_labels()
        named.update((name, line) for name, line in zip(names, lines, strict=True) if name not in named)
    if named:
        columns = min(len(named), 5)
        figure.legend(list(named.values()), list(named), loc="outside lower center", ncols=columns, fontsize=8)


def svg(figure: Figure) -> str:
    """Returns the SVG of a figure."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()
