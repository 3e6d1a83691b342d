"""The command line: ``python main.py COMMAND ...`` or, where the library is installed, ``momalit COMMAND ...``.

This module imports quickly: only the commands that need PyTorch and Lightning import them.
"""

from __future__ import annotations

import difflib
import errno
import os
import sys
from argparse import ArgumentError
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

from momalit.cli.interrupts import remembered_interrupts
from momalit.core.errors import INTERRUPTED, DivergedError, UserError

COMMANDS = {
    "fit": "train a team; MOMA-PPO first trains its world model or loads it from the cache",
    "validate": "evaluate a checkpoint on the validation seeds",
    "test": "evaluate a checkpoint on the test seeds",
    "predict": "write a checkpoint's predictions on the test trajectories to predictions.npz",
    "collect": "collect a dataset on a built-in task",
    "import": "convert a table (CSV, Parquet) or a single-agent dataset (D4RL, Minari) into a team's dataset",
    "inspect": "show what is in a dataset, and what to expect of learning from it",
    "estimate": "estimate the return of trained teams from data alone",
    "export": "write a trained team's agents as ONNX, for use without momalit",
    "study": "run a grid of tasks, datasets, methods and seeds",
    "cross-play": "evaluate teams whose agents come from different runs",
    "report": "compare the runs of a study in tables and figures",
    "completion": "print a script with which bash, zsh or fish complete commands and options",
}

QUIET = ("-q", "--quiet")

# No space, no quota, a file too large, a read-only file system, no permission.
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)

NON_TRAINING_COMMANDS = {  # command -> module and function in ``momalit.cli.commands``
    "collect": ("collect", "run_collect"),
    "import": ("import_dataset", "run_import"),
    "inspect": ("inspect_dataset", "run_inspect"),
    "estimate": ("estimate", "run_estimate"),
    "export": ("export", "run_export"),
    "study": ("study", "run_study"),
    "cross-play": ("cross_play", "run_cross_play"),
    "report": ("report", "run_report"),
    "completion": ("completion", "run_completion"),
}

EXAMPLES = """\
  python main.py fit --config icg.yaml
  python main.py fit --config reacher.yaml --config overlays/quick.yaml --seed_everything 1
  python main.py fit --config own.yaml --data.dataset my.hdf5 --model.lr 3e-4 --trainer.max_epochs 5
  python main.py fit --run_dir runs/reacher/20260102-030405-0 --ckpt_path last
  python main.py test --run_dir runs/reacher/20260102-030405-0 --ckpt_path best
  python main.py collect reacher/expert-mix --env.observability independent --transitions 100000 --output data/mine
  python main.py import ant_medium-v2.hdf5 --env ant --env.observability partial --output data/ant
  python main.py import logs.csv --layout layout.yaml --output data/mine
  python main.py inspect data/mine --output mine.html
  python main.py estimate runs/own/20260102-030405-0 --checkpoint both
  python main.py export runs/reacher/20260102-030405-0 --output team
  python main.py study studies/agreement_icg.yaml --jobs 2
  python main.py report runs/studies/agreement_icg
  python main.py cross-play runs/icg/20260102-030405-0 runs/icg/20260102-030709-1"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the arguments after the program's name. Default: ``sys.argv[1:]``.

    Returns:
        the exit code: 0, 2 after a user's mistake, 1 if training diverged or a file cannot be written, or 128 and the
        signal's number after SIGINT and SIGTERM. All are explained in one line on standard error. Any other failure
        raises an exception.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    quiet = any(argument in QUIET for argument in arguments)
    arguments = [argument for argument in arguments if argument not in QUIET]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(overview())
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        from momalit.training.run_directory import library_version

        sys.stdout.write(f"momalit {library_version()}\n")
        return 0
    try:
        if (working_directory := _working_directory()) not in sys.path:
            sys.path.append(working_directory)  # users' callbacks and environments can be imported from there
        with remembered_interrupts():
            return _dispatch(arguments[0], arguments[1:], quiet)
    except UserError as error:
        if _caused_by_interrupt(error):
            return _interrupted()
        line = str(error)
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        where = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"error: {where}cannot be written ({error.strerror}); what was written before is whole\n")
        return 1
    except DivergedError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except ArgumentError as error:
        from momalit.cli.error_messages import one_line

        line = one_line(error.message)
    except SystemExit as stop:  # raised by --help, --print_config and an interrupted fit
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException as error:
        if not _caused_by_interrupt(error):
            raise
        return _interrupted()
    sys.stderr.write(f"error: {' '.join(line.split())}\n")
    return 2


def _caused_by_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error: libraries written in C turn it into an ImportError while they are imported."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.add(id(error))  # causes may form a circle
        error = error.__cause__ or error.__context__
    return False


def _interrupted() -> int:
    sys.stderr.write("interrupted\n")
    return INTERRUPTED


def _working_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        raise UserError("working directory: found none, it was deleted; expected an existing one") from None


def overview() -> str:
    """Returns the text of ``--help``."""
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    return (
        "usage: python main.py COMMAND [--config NAME_OR_FILE ...] [--KEY VALUE ...]\n\n"
        "Trains teams of agents on offline datasets with MOMA-PPO and baselines.\n\n"
        f"commands:\n{commands}\n\n"
        f"examples:\n{EXAMPLES}\n\n"
        "python main.py COMMAND --help lists the options of a command. With --print_config, fit, validate, test and\n"
        "predict print all their settings and exit. -q shows only results, warnings and errors. --version prints the\n"
        "version. The CPU uses one thread, or $OMP_NUM_THREADS threads. Datasets and world models are stored in\n"
        "$MOMALIT_HOME (default: ~/.cache/momalit).\n"
    )


def _require_packages() -> None:
    """Checks that this Python has the packages that every command needs.

    Raises:
        UserError: a package is missing.
    """
    missing = [name for name in ("torch", "lightning", "jsonargparse", "rich") if find_spec(name) is None]
    if missing:
        raise UserError(
            f"{sys.executable}: found no package {missing[0]}, expected a Python that has momalit's packages: run make"
            " setup and use .venv/bin/python, or pip install momalit"
        )


def _dispatch(command: str, arguments: list[str], quiet: bool) -> int:
    _require_packages()
    from momalit.cli.console import console_logging

    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(COMMANDS)}"
        raise UserError(f"command: found '{command}', {hint}")
    if command in NON_TRAINING_COMMANDS:
        module, name = NON_TRAINING_COMMANDS[command]
        with console_logging(quiet):
            getattr(import_module(f"momalit.cli.commands.{module}"), name)(arguments)
    else:
        from momalit.cli.training_cli import TrainingCLI

        if quiet:
            arguments = [*arguments, "--trainer.enable_progress_bar=false"]
        with console_logging(quiet):  # after the import, during which Lightning sets its loggers' levels
            TrainingCLI.start(command, arguments)
    return 0
