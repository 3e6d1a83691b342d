"""Figures of one run, one dataset or several teams, as SVG. The same numbers give the same bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from momalit.studies.figures import COLOURS, STYLE, WIDTH, svg

# By label: values of x and y, and of the lower and upper end of an interval of y if there is one.
Lines = Mapping[str, Sequence[Sequence[float]]]


def curves(panels: Sequence[tuple[str, Lines]]) -> str:
    """Draws lines over epochs, one panel per title.

    Args:
        panels: title of each panel, and its lines. Intervals are drawn as bands.

    Returns:
        the SVG.
    """
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]
        columns = min(len(panels), 3)
        figure = Figure((WIDTH, 2.1 * -(-len(panels) // columns)), layout="constrained")
        grid = figure.subplots(-(-len(panels) // columns), columns, squeeze=False).flatten()
        for axes, (title, lines) in zip(grid, panels, strict=False):
            for colour, (label, (x, y, *interval)) in zip(COLOURS[1:], lines.items(), strict=False):
                axes.plot(
                    x, y, color=colour, linewidth=1.2, label=label, marker="o" if len(x) < 30 else "", markersize=2
                )
                if interval:
                    axes.fill_between(x, *interval, color=colour, alpha=0.15, linewidth=0)
            axes.set_title(title, fontsize=8)
            axes.set_xlabel("epoch")
            if any(lines):
                axes.legend(fontsize=7)
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        return svg(figure)


def histograms(values: Mapping[str, Any]) -> str:
    """Draws one histogram per name, side by side.

    Args:
        values: numbers ``(N,)`` by name.

    Returns:
        the SVG.
    """
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure((WIDTH, 2.4), layout="constrained")
        panels = np.atleast_1d(figure.subplots(1, len(values)))
        for axes, (name, numbers) in zip(panels, values.items(), strict=True):
            axes.hist(np.asarray(numbers, float), bins=min(40, max(len(numbers) // 5, 5)), color=COLOURS[1])
            axes.set_xlabel(name)
            axes.set_ylabel("episodes")
        return svg(figure)


def against_truth(points: Sequence[tuple[float, float, float, float, float]], many_outside: float) -> str:
    """Draws estimated against real returns, with the estimates' intervals.

    Args:
        points: real return, estimate, both ends of its interval, and the share of steps outside the data.
        many_outside: from which share on a team is drawn open.

    Returns:
        the SVG.
    """
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure((WIDTH / 2, WIDTH / 2), layout="constrained")
        axes = figure.subplots()
        real, estimate, low, high, outside = np.array(points).T
        ends = [min(real.min(), estimate.min()), max(real.max(), estimate.max())]
        axes.axline((ends[0], ends[0]), slope=1, color="#888888", linewidth=0.8)
        axes.vlines(real, low, high, color=COLOURS[5], linewidth=1)
        for which, fill, label in (
            (outside <= many_outside, COLOURS[1], None),
            (outside > many_outside, "white", f"over {100 * many_outside:.0f} % of the steps outside the data"),
        ):
            axes.scatter(real[which], estimate[which], s=14, color=COLOURS[1], facecolor=fill, zorder=3, label=label)
        margin = 0.1 * max(ends[1] - ends[0], 1e-9)
        axes.set_xlim(ends[0] - margin, ends[1] + margin)
        axes.set_ylim(ends[0] - 2 * margin, ends[1] + 2 * margin)
        axes.set_xlabel("real return")
        axes.set_ylabel("estimate, with 95 % interval")
        if (outside > many_outside).any():
            axes.legend(fontsize=7, loc="lower right")
        return svg(figure)


def run_figures(data: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Draws the contents of a run's ``figures.json`` (see ``momalit.policies.figure_data``).

    Yields:
        name, caption and SVG of each figure.
    """
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]
        yield (
            "world_model",
            "The world model on held-out data. Left: error of its mean prediction, in standard deviations of the change"
            " and the reward, of ten equally large groups of steps by the members' disagreement. It should rise. Right:"
            " error of rollouts with the recorded actions, in standard deviations of the state.",
            svg(_world_model(data)),
        )
        yield (
            "states",
            "Where the team goes (imagined episodes) and where the data are, in the two directions in which the data"
            " vary most.",
            svg(_states(data["states"])),
        )
        yield "actions", "How the team acts, and how the data do.", svg(_action_shares(data["actions"]))


def _world_model(data: Mapping[str, Any]) -> Figure:
    figure = Figure((WIDTH, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    groups = data["calibration"]
    x, y = ([group[name] for group in groups] for name in ("uncertainty", "error"))
    left.plot(x, y, color=COLOURS[1], marker="o", markersize=3)
    left.set_xlabel("disagreement of the members")
    left.set_ylabel("error")
    if min(x) > 0:
        left.set_xscale("log")
    steps = [int(length) for length in data["open_loop"]]
    right.plot(steps, list(data["open_loop"].values()), color=COLOURS[1], marker="o", markersize=3)
    right.set_xlabel("steps")
    right.set_ylabel("error")
    right.set_ylim(bottom=0)
    return figure


def _states(states: Mapping[str, Sequence[Sequence[float]]]) -> Figure:
    figure = Figure((WIDTH, 3.2), layout="constrained")
    axes: Axes = figure.subplots()
    for name, colour in (("data", COLOURS[6]), ("team", COLOURS[0])):
        points = np.array(states[name]).reshape(-1, 2)
        axes.scatter(points[:, 0], points[:, 1], s=5, color=colour, alpha=0.6, linewidth=0, label=name)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.legend(fontsize=7)
    return figure


def _action_shares(actions: Mapping[str, Mapping[str, Any]]) -> Figure:
    columns = min(len(actions), 4)
    rows = -(-len(actions) // columns)
    figure = Figure((WIDTH, 1.7 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, (name, shares) in zip(grid, actions.items(), strict=False):
        n = len(shares["data"])
        discrete = "low" not in shares
        centres = np.arange(n) if discrete else np.linspace(shares["low"], shares["high"], 2 * n + 1)[1::2]
        width = 0.8 if discrete else centres[1] - centres[0]
        axes.bar(centres, shares["data"], width, color=COLOURS[6], alpha=0.5, label="data")
        axes.step(centres, shares["team"], where="mid", color=COLOURS[0], linewidth=1.2, label="team")
        axes.set_title(name, fontsize=8)
        axes.set_yticks([])
        if discrete:
            axes.set_xticks(centres if n <= 8 else centres[:: n // 8])
        else:
            axes.set_xticks([shares["low"], (shares["low"] + shares["high"]) / 2, shares["high"]])
    grid[0].legend(fontsize=7)
    for axes in grid[len(actions) :]:
        axes.set_visible(False)
    return figure
