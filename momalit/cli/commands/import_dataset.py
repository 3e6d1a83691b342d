"""The command ``import``: makes a team's dataset of what a single agent recorded."""

from __future__ import annotations

import logging
from argparse import ArgumentError
from typing import Any

from jsonargparse import ArgumentParser

from momalit.cli.commands.collect import quoted
from momalit.cli.error_messages import one_line
from momalit.core.errors import UserError

logger = logging.getLogger(__name__)


def run_import(words: list[str]) -> None:
    """Imports what the words after ``import`` name, and says where the dataset is.

    Raises:
        UserError: the words make no sense, or the source cannot be imported.
    """
    parser = _parser()
    try:
        chosen = parser.parse_args(_named(words))
    except ArgumentError as error:
        raise UserError(one_line(error.message, [action.dest for action in parser._actions])) from error
    if "name" not in (chosen.env or {}):
        raise UserError("env: missing, expected the team's task, e.g. --env ant")
    from datamodules.builders.import_dataset import import_dataset

    path = import_dataset(chosen.source, dict(chosen.env), chosen.columns, chosen.output)
    logger.info("the dataset is in %s; train on it with --data.dataset %s", path, quoted(path))


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="momalit import",
        usage="python main.py import SOURCE --env TASK [--env.SETTING VALUE ...] [--columns FIRST:END] [--output DIR]",
        description="Makes a team's dataset of a single agent's: its actuators are shared out among the task's agents.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument(
        "source",
        type=str,
        help="an HDF5 file in D4RL's layout, a Minari dataset's directory, or its name, e.g. mujoco/ant/medium-v0",
    )
    parser.add_argument(
        "--env",
        type=dict[str, Any] | None,
        default=None,
        metavar="TASK",
        help="the team's task, e.g. ant, and its settings as --env.SETTING VALUE",
    )
    parser.add_argument(
        "--columns",
        type=str | None,
        default=None,
        metavar="FIRST:END",
        help="columns of the observations that are the state (default: all, or the first of a width the task knows)",
    )
    parser.add_argument(
        "--output",
        type=str | None,
        default=None,
        metavar="DIR",
        help="new directory to make it in (default: its place under $MOMALIT_HOME)",
    )
    return parser


def _named(words: list[str]) -> list[str]:
    """The words with ``--env NAME`` as ``--env.name NAME``, which leaves room for settings beside the name."""
    found = []
    for i, word in enumerate(words):
        key, equals, value = word.partition("=")
        given = value if equals else words[i + 1] if i + 1 < len(words) else ""
        plain = key == "--env" and bool(given) and not given.startswith(("{", "-"))
        found.append(f"--env.name{equals}{value}" if plain else word)
    return found
