"""The exceptions for mistakes that the user can correct, and for training whose numbers are no longer finite."""

from __future__ import annotations

INTERRUPTED = 130  # exit code after Ctrl-C: 128 and SIGINT's number
MAIN_GUARD_HINT = 'if it did not start: a script with workers must run its code under `if __name__ == "__main__":`'


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
