"""The command ``import``: converts a single-agent dataset into a team's dataset."""

from __future__ import annotations

import logging
from typing import Any

from jsonargparse import ArgumentParser

from momalit.cli.commands.collect import quoted
from momalit.cli.error_messages import parse_arguments
from momalit.core.errors import UserError

logger = logging.getLogger(__name__)


def run_import(arguments: list[str]) -> None:
    """Imports a dataset and logs its path.

    Args:
        arguments: the command-line arguments after ``import``.

    Raises:
        UserError: an argument is invalid, or the source cannot be imported.
    """
    options = parse_arguments(_parser(), _expand_env_name(arguments))
    if "name" not in (options.env or {}):
        raise UserError("env: missing, expected the team's task, e.g. --env ant")
    from datamodules.builders.import_dataset import import_dataset

    path = import_dataset(options.source, dict(options.env), options.columns, options.output)
    logger.info("the dataset is in %s; train on it with --data.dataset %s", path, quoted(path))


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="momalit import",
        usage="python main.py import SOURCE --env TASK [--env.SETTING VALUE ...] [--columns FIRST:END] [--output DIR]",
        description="Converts a single-agent dataset into a team's: each agent of the task controls some of the"
        " actuators.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument(
        "source",
        type=str,
        metavar="SOURCE",
        help="an HDF5 file in D4RL's format, the directory of a Minari dataset, or the name of a Minari dataset, e.g."
        " mujoco/ant/medium-v0",
    )
    parser.add_argument(
        "--env",
        type=dict[str, Any] | None,
        default=None,
        metavar="TASK",
        help="the team's task, e.g. ant; its settings are --env.SETTING VALUE",
    )
    parser.add_argument(
        "--columns",
        type=str | None,
        default=None,
        metavar="FIRST:END",
        help="columns of the observations that contain the state, e.g. 0:27 (if null: all columns, or the first ones"
        " if the task knows the observations' width)",
    )
    parser.add_argument(
        "--output",
        type=str | None,
        default=None,
        metavar="DIR",
        help="new directory for the dataset (if null: a folder in $MOMALIT_HOME)",
    )
    return parser


def _expand_env_name(arguments: list[str]) -> list[str]:
    """Replaces ``--env NAME`` by ``--env.name NAME``, which can be combined with ``--env.SETTING VALUE``."""
    expanded = []
    for i, argument in enumerate(arguments):
        key, equals, value = argument.partition("=")
        name = value if equals else arguments[i + 1] if i + 1 < len(arguments) else ""
        is_name = key == "--env" and bool(name) and not name.startswith(("{", "-"))
        expanded.append(f"--env.name{equals}{value}" if is_name else argument)
    return expanded
