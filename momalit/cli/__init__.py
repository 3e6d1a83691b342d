"""The command line: ``python main.py COMMAND ...`` or, where the library is installed, ``momalit COMMAND ...``.

This module starts at once: PyTorch and Lightning are imported only by a command that needs them.
"""

from __future__ import annotations

import difflib
import os
import sys
from argparse import ArgumentError
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

from momalit.core.errors import UserError

COMMANDS = {
    "fit": "train a team; MOMA-PPO trains its world model first, or finds it in the cache",
    "validate": "evaluate a checkpoint on the validation seeds",
    "test": "evaluate a checkpoint on the test seeds",
    "predict": "write what a checkpoint predicts to predictions.npz",
    "collect": "make a dataset of a built-in task from a seed",
    "import": "make a team's dataset of a single agent's, from D4RL or Minari",
    "study": "run a grid of tasks, datasets, methods and seeds",
    "cross-play": "play teams whose agents come from different runs",
    "report": "compare the runs of a study: tables, figures, a page",
}

OWN = {  # commands that are no training: where they live
    "collect": ("collect", "run_collect"),
    "import": ("import_dataset", "run_import"),
    "study": ("study", "run_study"),
    "cross-play": ("cross_play", "run_cross_play"),
    "report": ("report", "run_report"),
}

EXAMPLES = """\
  python main.py fit --config icg.yaml
  python main.py fit --config reacher.yaml --config overlays/quick.yaml --seed_everything 1
  python main.py fit --config reacher.yaml --data.dataset my.hdf5 --model.lr 3e-4 --trainer.max_epochs 5
  python main.py fit --run_dir runs/reacher/20260102-030405-0 --ckpt_path last
  python main.py test --run_dir runs/reacher/20260102-030405-0 --ckpt_path best
  python main.py collect reacher/expert-mix --env.observability independent --transitions 100000 --output data/mine
  python main.py import ant_medium-v2.hdf5 --env ant --env.observability partial --output data/ant
  python main.py study studies/agreement_icg.yaml --jobs 2
  python main.py report runs/studies/agreement_icg
  python main.py cross-play runs/icg/20260102-030405-0 runs/icg/20260102-030709-1"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the words after the program's name; those of the process by default.

    Returns:
        the exit code: 0, or 2 after a mistake of the user's, which is told in one line on standard error.
        Any other failure is an exception.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        sys.stdout.write(overview())
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        from momalit.training.run_directory import library_version

        sys.stdout.write(f"momalit {library_version()}\n")
        return 0
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)  # a user's own callbacks and environments lie where the command is given
    try:
        return _dispatch(words[0], words[1:])
    except UserError as error:
        line = str(error)
    except ArgumentError as error:
        from momalit.cli.error_messages import one_line

        line = one_line(error.message)
    except SystemExit as stop:  # --help and --print_config end here, and so does an interrupted fit
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    sys.stderr.write(f"error: {' '.join(line.split())}\n")
    return 2


def overview() -> str:
    """The text of ``--help``."""
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    return (
        "usage: python main.py COMMAND [--config NAME_OR_FILE ...] [--KEY VALUE ...]\n\n"
        "Teams of agents trained from logs alone.\n\n"
        f"commands:\n{commands}\n\n"
        f"examples:\n{EXAMPLES}\n\n"
        "python main.py COMMAND --help lists the command's options; --print_config added to a command shows every\n"
        "setting that it would use; --version tells the version. Computing on the CPU takes one thread, or\n"
        "$OMP_NUM_THREADS of them; datasets and trained world models are kept in $MOMALIT_HOME (~/.cache/momalit).\n"
    )


def _require_packages() -> None:
    """Tells who runs another Python than the project's that it is another one.

    Raises:
        UserError: a package that everything needs is missing.
    """
    missing = [name for name in ("torch", "lightning", "jsonargparse", "rich") if find_spec(name) is None]
    if missing:
        raise UserError(
            f"{sys.executable}: found no package {missing[0]}, expected a Python that has momalit's packages: run make"
            " setup and use .venv/bin/python, or pip install momalit"
        )


def _dispatch(command: str, words: list[str]) -> int:
    _require_packages()
    from momalit.cli.console import console_logging

    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(COMMANDS)}"
        raise UserError(f"command: found '{command}', {hint}")
    if command in OWN:
        module, name = OWN[command]
        with console_logging():
            getattr(import_module(f"momalit.cli.commands.{module}"), name)(words)
    else:
        from momalit.cli.training_cli import TrainingCLI

        with console_logging():  # after the import, in which Lightning makes its loggers talkative
            TrainingCLI.start(command, words)
    return 0
