"""The figures of a report, as SVG: the same bytes for the same results."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from momalit.studies.load_results import Place, Results, Row, values
from momalit.studies.statistics import bootstrap_interval

# Okabe and Ito's colours, which colour-blind readers tell apart; black and yellow are left out.
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
REFERENCES = (("return_data", "mean of the data", ":"), ("return_expert", "expert", "--"))
FARTHEST = 2.0  # times the width of the runs beside them, at which references are left to the table


def figures(results: Results) -> Iterator[tuple[str, str, str]]:
    """Draws what the results allow.

    Yields:
        name, what it shows, and its SVG.
    """
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]
        colour = {method: COLOURS[i % len(COLOURS)] for i, method in enumerate(results.methods)}
        yield (
            "returns",
            "Return of the last checkpoint: every seed (dots), their mean and its 95 % interval.",
            _svg(_returns(results, colour)),
        )
        if results.curves:
            yield (
                "curves",
                "Return on the validation seeds during training: the mean over seeds, and every seed (thin).",
                _svg(_curves(results, colour)),
            )
        if any(row.get("normalized_last") is not None for row in results.runs):
            yield (
                "profile",
                "Share of the runs of a method whose normalised score exceeds a threshold.",
                _svg(_profile(results, colour)),
            )
        if results.teams:
            yield (
                "cross_play",
                "Teams as they were trained (filled), and stitched from agents of different seeds (open), with 95 %"
                " intervals over teams.",
                _svg(_cross_play(results, colour)),
            )
            if all(str(row["seeds"]).count("+") == 1 for row in results.teams):
                yield (
                    "cross_play_seeds",
                    "Return of the team of one agent's training seed (rows) and the other's (columns).",
                    _svg(_matrices(results)),
                )


def _panels(results: Results, places: Sequence[Place], height: float) -> tuple[Figure, list[tuple[Place, Axes]]]:
    """One panel per group with its title, at most three in a row."""
    columns = min(len(places), 3)
    rows = -(-len(places) // columns)
    figure = Figure(figsize=(WIDTH, rows * height + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for spare in axes[len(places) :]:
        spare.axis("off")
    letters = 12 * (WIDTH / columns - 0.9)  # of ten points, beside the methods' names on the left
    for place, panel in zip(places, axes, strict=False):
        name = results.panel_name(place)
        panel.set_title(name, fontsize=10 * min(1.0, letters / max(len(name), 1)))
    return figure, list(zip(places, axes, strict=False))


def _returns(results: Results, colour: Mapping[str, str]) -> Figure:
    figure, panels = _panels(results, results.places, 0.45 + 0.26 * len(results.methods))
    for place, axes in panels:
        methods = results.methods_at(place)
        for y, method in enumerate(methods):
            scores = results.scores(place, method, "return_last")
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
        _references(axes.axvline, axes.get_xlim(), results.of(place))
        axes.set_xlabel("return")
    _legend(figure, panels)
    return figure


def _curves(results: Results, colour: Mapping[str, str]) -> Figure:
    places = [place for place in results.places if results.of(place, rows=results.curves)]
    figure, panels = _panels(results, places, 2.5)
    for place, axes in panels:
        for method in reversed(results.methods_at(place)):  # the first one is drawn on top
            rows = results.of(place, method, results.curves)
            if not rows:
                continue
            end = max(row["epoch"] for row in rows) + 1
            seeds = sorted({row["seed"] for row in rows})
            for seed in seeds:
                own = [row for row in rows if row["seed"] == seed]
                share = [(row["epoch"] + 1) / end for row in own]
                axes.plot(share, values(own, "return"), color=colour[method], lw=0.7, alpha=0.35)
            epochs = [e for e in sorted({r["epoch"] for r in rows}) if sum(r["epoch"] == e for r in rows) == len(seeds)]
            means = [values([row for row in rows if row["epoch"] == epoch], "return").mean() for epoch in epochs]
            axes.plot([(e + 1) / end for e in epochs], means, color=colour[method], lw=1.8, marker=".", ms=4)
        _references(axes.axhline, axes.get_ylim(), results.of(place))
        axes.grid(axis="y", color="#e4e4e4", lw=0.6)
        axes.xaxis.set_major_formatter(mpl.ticker.PercentFormatter(1.0))
        axes.set_xlabel("share of the method's training")
    panels[0][1].set_ylabel("return")
    handles = [mpl.lines.Line2D([], [], color=colour[method], lw=1.8, label=method) for method in results.methods]
    _legend(figure, panels, handles)
    return figure


def _profile(results: Results, colour: Mapping[str, str]) -> Figure:
    figure = Figure(figsize=(WIDTH * 0.7, 2.9), layout="constrained")
    axes = figure.subplots()
    scores = {
        m: values([row for row in results.runs if row["method"] == m], "normalized_last") for m in results.methods
    }
    everything = np.concatenate(list(scores.values()))
    low, high = min(0.0, float(everything.min())), max(1.0, float(everything.max()))
    threshold = np.linspace(low - 0.02, high + 0.02, 400)
    for method, own in reversed(scores.items()):
        if len(own):
            axes.step(threshold, (own[None] > threshold[:, None]).mean(1), color=colour[method], lw=1.6, label=method)
    axes.set_xlabel("normalised score (0: random actions, 1: expert)")
    axes.set_ylabel("share of runs above")
    axes.set_ylim(-0.02, 1.04)
    axes.grid(color="#e4e4e4", lw=0.6)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), reverse=True)
    return figure


def _cross_play(results: Results, colour: Mapping[str, str]) -> Figure:
    played = list(dict.fromkeys(row["method"] for row in results.teams))
    places = [place for place in results.places if results.of(place, rows=results.teams)]
    figure, panels = _panels(results, places, 0.45 + 0.28 * len(played))
    for place, axes in panels:
        methods = [method for method in played if results.of(place, method, results.teams)]
        for y, method in enumerate(methods):
            means = []
            for kind, offset in (("self", -0.14), ("cross", 0.14)):
                scores = results.team_scores(place, method, kind)
                if not len(scores):
                    continue
                low, high = bootstrap_interval([scores])
                filled = colour[method] if kind == "self" else "white"
                axes.plot([low, high], [y + offset] * 2, color=colour[method], lw=1.2, alpha=0.6)
                axes.plot(scores.mean(), y + offset, "o", ms=6, color=colour[method], mfc=filled, mew=1.3)
                means.append(scores.mean())
        axes.set_yticks(range(len(methods)), methods)
        axes.set_ylim(len(methods) - 0.5, -0.5)
        axes.grid(axis="x", color="#e4e4e4", lw=0.6)
        axes.set_axisbelow(True)
        axes.margins(x=0.08)
        axes.set_xlabel("return")
    marks = [
        mpl.lines.Line2D([], [], ls="", marker="o", color="#444444", label="as trained together"),
        mpl.lines.Line2D(
            [], [], ls="", marker="o", color="#444444", mfc="white", label="stitched from different seeds"
        ),
    ]
    _legend(figure, panels, marks)
    return figure


def _matrices(results: Results) -> Figure:
    methods = list(dict.fromkeys(row["method"] for row in results.teams))
    places = [place for place in results.places if results.of(place, rows=results.teams)]
    figure = Figure(figsize=(0.9 + 1.35 * len(methods), 0.6 + 1.35 * len(places)), layout="constrained")
    grid = figure.subplots(len(places), len(methods), squeeze=False)
    everything = values(results.teams, "return")
    image = None
    for row, place in enumerate(places):
        for column, method in enumerate(methods):
            axes = grid[row, column]
            teams = results.of(place, method, results.teams)
            if not teams:
                axes.axis("off")
                continue
            names, table = _matrix(teams)
            image = axes.imshow(table, cmap="cividis", vmin=everything.min(), vmax=everything.max())
            axes.set_xticks(range(len(names)), names, fontsize=7)
            axes.set_yticks(range(len(names)), names, fontsize=7)
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            if row == 0:
                axes.set_title(method, fontsize=9)
            if column == 0:
                axes.set_ylabel(results.panel_name(place).replace(", ", "\n"), fontsize=8)
    if image is not None:
        figure.colorbar(image, ax=grid, label="return", shrink=0.7, pad=0.02)
    return figure


def _matrix(teams: Sequence[Row]) -> tuple[list[str], Any]:
    """Names of the seeds, and the returns of their pairs, NaN where a pair was not played."""
    names = sorted({name for row in teams for name in row["seeds"].split("+")}, key=lambda name: (len(name), name))
    table = np.full((len(names), len(names)), np.nan)
    for row in teams:
        one, other = row["seeds"].split("+")
        table[names.index(one), names.index(other)] = row["return"]
    return names, table


def _references(line: Any, limits: tuple[float, float], rows: Sequence[Row]) -> None:
    """Draws what the runs are compared with, but for what is so far off that it would squeeze them to a point."""
    low, high = limits
    reach = FARTHEST * (high - low)
    for column, label, style in REFERENCES:
        found = values(rows, column)
        if len(found) and low - reach <= found.mean() <= high + reach:
            line(found.mean(), color="#777777", lw=1, ls=style, label=label, zorder=0)


def _legend(figure: Figure, panels: Sequence[tuple[Place, Axes]], handles: Sequence[Any] = ()) -> None:
    """One legend below all panels: the given marks, and every line of a panel that has a name."""
    named = dict(zip((handle.get_label() for handle in handles), handles, strict=True))
    for _, axes in panels:
        lines, names = axes.get_legend_handles_labels()
        named.update((name, line) for name, line in zip(names, lines, strict=True) if name not in named)
    labels, every = list(named), list(named.values())
    if every:
        figure.legend(every, labels, loc="outside lower center", ncols=min(len(every), 5), fontsize=8)


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()
