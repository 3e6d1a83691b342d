"""The exception for mistakes that the user can correct."""


class UserError(ValueError):
    """A mistake in the user's input. The one-line message has the key or file, what was found and what was expected.

    The command line prints only the message and exits with code 2. In Python it is an ordinary ``ValueError``.
    """
