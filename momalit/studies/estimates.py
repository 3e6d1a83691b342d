"""Estimated returns of teams, beside their real ones where these are known: table, remarks and figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from momalit.studies.plots import against_truth
from momalit.studies.tables import Table, drop_empty_columns, format_number
from momalit.studies.write_results import write_table
from momalit.training.run_directory import write_text

MANY_OUTSIDE, WELL_EXPLAINED = 0.1, 0.9
CLOSE = 0.05


@dataclass
class Judged:
    """A team and what is known about its return.

    Args:
        run: the run's directory.
        checkpoint: name of the checkpoint.
        estimate: estimated return.
        interval: its 95 % interval.
        outside: share of steps outside the data, or None.
        fitted_q: discounted value by fitted-Q evaluation, or None.
        real: mean return of real episodes, or None.
        real_error: standard error of that mean.
        reward_explained: share of the rewards' variance on held-out steps that the world model explains, or None.
    """

    run: str
    checkpoint: str
    estimate: float
    interval: tuple[float, float]
    outside: float | None = None
    fitted_q: float | None = None
    real: float | None = None
    real_error: float | None = None
    reward_explained: float | None = None

    @property
    def covers(self) -> bool:
        """Whether the interval, widened by two standard errors of the real return, contains that return."""
        if self.real is None or self.real_error is None:
            return False
        slack = 2 * self.real_error
        return self.interval[0] - slack <= self.real <= self.interval[1] + slack


def estimates_table(teams: Sequence[Judged]) -> Table:
    """A row per team. Columns without any value are left out."""
    rows = [
        [
            f"{team.run} {team.checkpoint}",
            format_number(team.estimate),
            f"{format_number(team.interval[0])} to {format_number(team.interval[1])}",
            "" if team.outside is None else f"{team.outside:.0%}",
            "" if team.fitted_q is None else format_number(team.fitted_q),
            "" if team.real is None else format_number(team.real),
        ]
        for team in teams
    ]
    header = ["team", "estimate", "95 % interval", "outside the data", "fitted Q", "real"]
    return drop_empty_columns(Table("Estimated returns", header, rows))


def remarks(teams: Sequence[Judged]) -> list[str]:
    """What to think of the estimates, in words; with real returns, how good they are."""
    found = []
    guesses = [team for team in teams if (team.outside or 0) > MANY_OUTSIDE]
    if guesses:
        found.append(
            f"{len(guesses)} of {len(teams)} teams are outside the data in more than {100 * MANY_OUTSIDE:.0f} % of"
            " their steps; what the model says there is a guess, and the interval does not cover it"
        )
    least = min((team.reward_explained for team in teams if team.reward_explained is not None), default=1.0)
    if least < WELL_EXPLAINED:
        found.append(poorly_explained(least))
    known = [team for team in teams if team.real is not None]
    if len(known) < 3:
        return found
    real = [float(team.real) for team in known if team.real is not None]
    inside = sum(team.covers for team in known)
    found.append(f"{inside} of {len(known)} intervals contain the real return")
    ways = {"rank correlation with the real return": [team.estimate for team in known]}
    if all(team.fitted_q is not None for team in known):
        ways["rank correlation of fitted-Q evaluation"] = [float(team.fitted_q or 0) for team in known]
    for name, values in ways.items():
        correlation = _rank_correlation(values, real)
        if correlation is not None:
            found.append(f"{name}: {correlation:.2f}")
    chosen = [_loss_of_choice(list(group)) for _, group in groupby(known, key=lambda team: team.run)]
    compared = [loss for loss in chosen if loss is not None]
    if compared:
        close = sum(loss <= CLOSE for loss in compared)
        found.append(
            f"in {close} of {len(compared)} runs with several checkpoints, the one with the highest estimate is within"
            f" {100 * CLOSE:.0f} % of the best one; at worst {100 * max(compared):.0f} % less"
        )
    return found


def poorly_explained(share: float) -> str:
    """What to say of a world model that explains a small share of the rewards' variance."""
    return (
        f"The world model explains only {share:.0%} of the rewards' variance on held-out data: what a team gains beyond"
        " the data may be an error of the model, which the interval does not cover"
    )


def _rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's rank correlation, where equal values share their mean rank; None if all values are equal."""
    ranks = []
    for values in (a, b):
        _, position, count = np.unique(np.round(values, 6), return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(count) - (count - 1) / 2)[position])
    if min(np.ptp(rank) for rank in ranks) == 0:
        return None
    return float(np.asarray(np.corrcoef(np.array(ranks)))[0, 1])


def _loss_of_choice(teams: Sequence[Judged]) -> float | None:
    """What choosing by the estimate loses, as a share of the best real return; None for a single team."""
    if len(teams) < 2:
        return None
    real = [float(team.real or 0) for team in teams]
    chosen = real[int(np.argmax([team.estimate for team in teams]))]
    return (max(real) - chosen) / max(abs(max(real)), 1e-9)


def write_estimates(directory: Path, teams: Sequence[Judged]) -> None:
    """Writes ``estimates.csv`` and, if there are real returns, ``estimates.svg``."""
    directory.mkdir(parents=True, exist_ok=True)
    rows = [{**asdict(team), "low": team.interval[0], "high": team.interval[1]} for team in teams]
    columns = [
        "run",
        "checkpoint",
        "estimate",
        "low",
        "high",
        "outside",
        "reward_explained",
        "fitted_q",
        "real",
        "real_error",
    ]
    write_table(directory / "estimates.csv", columns, rows)
    known = [team for team in teams if team.real is not None]
    if known:
        points = [(float(team.real or 0), team.estimate, *team.interval, team.outside or 0.0) for team in known]
        write_text(directory / "estimates.svg", against_truth(points, MANY_OUTSIDE))
