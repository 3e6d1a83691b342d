"""Hands over to the command line of momalit."""

import sys

from momalit.cli import main

if __name__ == "__main__":
    sys.exit(main())
