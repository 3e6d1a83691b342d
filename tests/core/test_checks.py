"""Checks of settings: which numbers and choices they allow, and what they say."""

from __future__ import annotations

import math

import pytest

from momalit.core.checks import require_choice, require_integers, require_numbers
from momalit.core.errors import UserError


@pytest.mark.parametrize(
    ("limits", "allowed", "refused", "expected"),
    [
        ({"least": 1}, (1, 5), (0, -2), "at least 1"),
        ({"above": 0}, (0.1,), (0, -1.0), "a number above 0"),
        ({"below": 2}, (-3, 1.9), (2,), "a number below 2"),
        ({"most": 2}, (2,), (2.1,), "a number up to 2"),
        ({"least": 0, "most": 1}, (0, 1), (-0.1, 1.5), "a number from 0 to 1"),
        ({"least": 0, "below": 1}, (0, 0.99), (1,), "a number from 0 to below 1"),
        ({"above": 0, "most": 1}, (0.1, 1), (0,), "a number above 0 and up to 1"),
        ({"above": 0, "below": 0.5}, (0.1,), (0, 0.5), "a number above 0 and below 0.5"),
    ],
)
def test_range_of_numbers(limits, allowed, refused, expected):
    numbers = {str(number): number for number in allowed}
    require_numbers("model.", {"first": None, **numbers}, **limits, optional=True)
    with pytest.raises(UserError, match=f"^model\\.unset: found null, expected {expected}$"):
        require_numbers("model.", {**numbers, "unset": None}, **limits)
    for number in (*refused, math.nan):
        with pytest.raises(UserError) as error:
            require_numbers("model.", {"good": allowed[0], "bad": number}, **limits)
        assert str(error.value) == f"model.bad: found {number}, expected {expected}"


def test_choice():
    require_choice("env.mode", None, (None, "human"))
    with pytest.raises(UserError, match=r"^--engine: found 'slurm', expected one of local, ray, dask$"):
        require_choice("--engine", "slurm", ("local", "ray", "dask"))
    with pytest.raises(UserError, match=r"^env\.mode: found 'ascii', expected null or human$"):
        require_choice("env.mode", "ascii", (None, "human"))
    with pytest.raises(UserError, match=r"^env\.mode: found null, expected human or ascii$"):
        require_choice("env.mode", None, ("human", "ascii"))


def test_integers():
    require_integers("data.", {"seed": 3}, least=0)
    for value, found in ((None, "null"), (-1, "-1"), (1.5, "1.5"), (True, "True")):
        with pytest.raises(UserError, match=f"^data\\.seed: found {found}, expected an integer of at least 0$"):
            require_integers("data.", {"seed": value}, least=0)
