"""The command ``collect``: makes a dataset."""

from __future__ import annotations

import logging
from argparse import ArgumentError
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from momalit.cli.error_messages import one_line
from momalit.core.errors import UserError

logger = logging.getLogger(__name__)


def run_collect(words: list[str]) -> None:
    """Makes the dataset that the words after ``collect`` ask for, and says where it is.

    Raises:
        UserError: the words make no sense, or the dataset cannot be made.
    """
    parser = _parser()
    try:
        chosen = parser.parse_args(words)
    except ArgumentError as error:
        raise UserError(one_line(error.message, [action.dest for action in parser._actions])) from error
    from datamodules import collect

    settings = dict(chosen.env or {})
    path = collect(chosen.dataset, settings, chosen.transitions, chosen.seed, chosen.output)
    logger.info("the dataset is in %s; train on it with --data.dataset %s", path, quoted(path))


def _parser() -> ArgumentParser:
    from datamodules.names import builtin_names

    parser = ArgumentParser(
        prog="momalit collect",
        description="Makes a dataset of a task from a seed: the same seed, the same dataset.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    names = ", ".join(builtin_names())
    parser.add_argument("dataset", type=str, help=f"one of {names}, or package.module:callable/random")
    parser.add_argument(
        "--env", type=dict[str, Any] | None, default=None, help="settings of the task, as --env.NAME VALUE"
    )
    parser.add_argument(
        "--transitions", type=int | None, default=None, help="least number of transitions (default: the task's)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random in it (default: 0)")
    parser.add_argument(
        "--output",
        type=str | None,
        default=None,
        metavar="DIR",
        help="new directory to make it in (default: its place under $MOMALIT_HOME)",
    )
    return parser


def quoted(path: Path) -> str:
    """A path as a command line takes it."""
    return f"'{path}'" if " " in str(path) else str(path)
