"""The exceptions for mistakes that the user can correct, and for training whose numbers are no longer finite."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

INTERRUPTED = 130  # exit code after Ctrl-C: 128 and SIGINT's number


class UserError(ValueError):
    """A mistake in the user's input. The one-line message has the key or file, what was found and what was expected.

    The command line prints only the message and exits with code 2. In Python it is an ordinary ``ValueError``.
    Characters that are not printable, as a stranger's file may have in its names, are shown as escape sequences.
    """

    def __init__(self, message: str) -> None:
        shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
        super().__init__("".join(shown))


class DivergedError(FloatingPointError):
    """Training computed a number that is not finite. The one-line message has its name, the epoch and a likely cause.

    The command line prints the message and exits with code 1. The last checkpoint is from the epoch before.
    """


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
