"""Checks of settings and keys, which raise ``UserError`` in the same words everywhere."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

from momalit.core.errors import UserError


def require_numbers(
    prefix: str,
    numbers: Mapping[str, float | None],
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    optional: bool = False,
) -> None:
    """Checks that numbers are in a range.

    Args:
        prefix: the beginning of their keys in the message, e.g. ``model.`` or ``--``.
        numbers: the numbers by name. NaN, and what is no number, is not allowed.
        least: the smallest number allowed.
        above: a lower bound that is not allowed itself.
        most: the largest number allowed.
        below: an upper bound that is not allowed itself.
        optional: whether None is allowed, as for a setting that need not be used.

    Raises:
        UserError: a number is outside. The message has the key of the first one.
    """
    for name, number in numbers.items():
        if number is None and optional:
            continue
        real = isinstance(number, int | float) and not isinstance(number, bool)
        inside = (
            number is not None
            and real
            and (least is None or number >= least)
            and (above is None or number > above)
            and (most is None or number <= most)
            and (below is None or number < below)
        )
        if not inside or number != number:
            found = number if real else _shown(number)
            raise UserError(f"{prefix}{name}: found {found}, expected {_words(least, above, most, below)}")


def require_integers(prefix: str, numbers: Mapping[str, object], least: int) -> None:
    """Checks integers that have a smallest value.

    Raises:
        UserError: a number is none or too small. The message has the key of the first one.
    """
    for name, number in numbers.items():
        if not isinstance(number, int) or isinstance(number, bool) or number < least:
            raise UserError(f"{prefix}{name}: found {_shown(number)}, expected an integer of at least {least}")


def require_choice(key: str, value: object, choices: Iterable[object]) -> None:
    """Checks that a setting has one of the values allowed.

    Raises:
        UserError: it has another value.
    """
    choices = list(choices)
    if value not in choices:
        names = ["null" if choice is None else str(choice) for choice in choices]
        expected = " or ".join(names) if len(names) == 2 else f"one of {', '.join(names)}"
        raise UserError(f"{key}: found {_shown(value)}, expected {expected}")


def require_known_keys(where: str, given: Iterable[object], known: Sequence[str]) -> None:
    """Checks the keys of a mapping in a user's file.

    Args:
        where: file and key of the mapping, as the beginning of the message, e.g. ``mine.yaml: agents.buyer.``.
        given: the keys found.
        known: the keys allowed.

    Raises:
        UserError: a key is unknown. The message suggests the nearest one.
    """
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
            raise UserError(f"{where}{key}: no such key; {hint}")


def _shown(value: object) -> str:
    """A value as the user wrote it: null is YAML's word for None."""
    return "null" if value is None else repr(value)


def _words(least: float | None, above: float | None, most: float | None, below: float | None) -> str:
    """Returns the range in words, e.g. ``a number above 0 and up to 1``."""
    if least is not None and most is not None:
        return f"a number from {least:g} to {most:g}"
    if least is not None and below is not None:
        return f"a number from {least:g} to below {below:g}"
    upper = f"up to {most:g}" if most is not None else f"below {below:g}" if below is not None else ""
    if above is not None:
        return f"a number above {above:g}{upper and f' and {upper}'}"
    return f"at least {least:g}" if least is not None else f"a number {upper}"
