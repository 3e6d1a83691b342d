"""The one exception that means: the user can mend this."""


class UserError(ValueError):
    """A mistake in what was asked for: its message is one line naming the key or file, what was found and what fits.

    The command line prints the message alone and exits with code 2; from Python it is an ordinary ``ValueError``.
    """
