"""``python -m momalit COMMAND ...``: the command line where no ``main.py`` is at hand."""

import sys

from momalit.cli import main

sys.exit(main())
