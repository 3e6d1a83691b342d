"""What a study's file asks of its results: claims, and what its report looks at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from momalit.core.checks import require_choice, require_numbers
from momalit.core.errors import UserError

ASKED = ("mean", "every", "estimate_within")
TREND_AXES = ("task", "dataset", "setting")  # a method is a line, never a point on a line


@dataclass(frozen=True)
class Claim:
    """What is asked of the runs of one method in one group.

    Args:
        where: names of task, dataset, setting and method, as far as they are given.
        mean: least mean over seeds of the last checkpoint's return; None asks nothing.
        every: least return of every seed; None asks nothing.
        estimate_within: largest difference between estimated and real return of every seed, as a share of the real one;
            None asks nothing.
    """

    where: Mapping[str, str]
    mean: float | None = None
    every: float | None = None
    estimate_within: float | None = None

    def fits(self, row: Mapping[str, Any]) -> bool:
        """Whether a row of ``results.csv`` belongs to the claim."""
        return all((row.get(axis) or "") == name for axis, name in self.where.items())

    def failures(self, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """Returns what does not hold for the rows of all seeds, in words."""
        returns = np.array([row["return_last"] for row in rows], float)
        failed = []
        if self.mean is not None and returns.mean() < self.mean:
            failed.append("mean")
        if self.every is not None and returns.min() < self.every:
            failed.append("every run")
        if self.estimate_within is not None and self.estimate_error(rows) > self.estimate_within:
            failed.append("estimate")
        return failed

    @staticmethod
    def estimate_error(rows: Sequence[Mapping[str, Any]]) -> float:
        """Largest difference between estimated and real return, as a share of the real one.

        It is infinite if an estimate is missing, or differs from a real return of 0.
        """
        return max(_relative_error(row.get("estimate_last"), row["return_last"]) for row in rows)


def _relative_error(estimate: float | None, real: float) -> float:
    if estimate is None or not math.isfinite(estimate):
        return math.inf
    if real == 0:
        return 0.0 if estimate == 0 else math.inf
    return abs(estimate / real - 1)


def read_claims(path: Path, given: Any, axes: Sequence[str]) -> list[Claim]:
    """Reads the entry ``claims`` of a study file: a list of mappings with names of axes and what is asked.

    Raises:
        UserError: an entry is invalid. The message has its key.
    """
    if given is None:
        return []
    if not isinstance(given, list):
        raise UserError(f"{path}: claims: found {given!r}, expected a list of mappings")
    claims = []
    for number, entry in enumerate(given):
        key = f"{path}: claims[{number}]"
        if not isinstance(entry, Mapping) or not set(entry) & set(ASKED):
            raise UserError(f"{key}: found {entry!r}, expected names of axes and at least one of {', '.join(ASKED)}")
        for name, value in entry.items():
            if name not in (*axes, *ASKED):
                raise UserError(f"{key}.{name}: no such key; expected one of {', '.join((*axes, *ASKED))}")
            if name in ASKED and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise UserError(f"{key}.{name}: found {value!r}, expected a number")
        where = {axis: str(entry[axis]) for axis in axes if axis in entry}
        claims.append(Claim(where, **{name: float(entry[name]) for name in ASKED if name in entry}))
    return claims


def read_trend_keys(path: Path, content: Mapping[str, Any]) -> tuple[str | None, float | None]:
    """Reads ``x_axis`` and ``reach`` of a study file.

    Returns:
        the axis that the report draws returns over, and the normalised score whose reaching it reports; None for each
        that is not given.

    Raises:
        UserError: a value is invalid. The message has its key.
    """
    axis, reach = content.get("x_axis"), content.get("reach")
    if axis is not None:
        require_choice(f"{path}: x_axis", axis, TREND_AXES)
    require_numbers(f"{path}: ", {"reach": reach}, above=0, most=1, optional=True)
    return axis, reach
