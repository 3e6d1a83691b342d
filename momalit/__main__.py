"""``python -m momalit COMMAND ...``: the command line without the repository's ``main.py``."""

import sys

from momalit.cli import main

sys.exit(main())
