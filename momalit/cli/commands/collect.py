"""The command ``collect``: collects a dataset on a built-in task."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from momalit.cli.error_messages import parse_arguments

logger = logging.getLogger(__name__)


def run_collect(arguments: list[str]) -> None:
    """Collects a dataset and logs its path.

    Args:
        arguments: the command-line arguments after ``collect``.

    Raises:
        UserError: an argument is invalid, or the dataset cannot be collected.
    """
    options = parse_arguments(_parser(), arguments)
    from datamodules import collect

    path = collect(
        options.dataset,
        options.env,
        options.transitions,
        options.seed,
        options.output,
        options.policy,
        options.behaviour,
        options.team or (),
    )
    logger.info("the dataset is in %s; train on it with --data.dataset %s", path, quoted(path))


def _parser() -> ArgumentParser:
    from datamodules.names import builtin_names

    parser = ArgumentParser(
        prog="momalit collect",
        usage="python main.py collect DATASET [--env.SETTING VALUE ...] [--behaviour.SETTING VALUE ...]"
        " [--policy NAME | --team RUN ...] [--transitions N] [--seed N] [--output DIR]",
        description="Collects a dataset on a task. The same seed gives the same dataset.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    names = ", ".join(builtin_names())
    parser.add_argument(
        "dataset",
        type=str,
        metavar="DATASET",
        help=f"one of {names}, or package.module:callable/random for an environment of your own; with"
        " --policy or --team, an environment",
    )
    parser.add_argument(
        "--policy",
        type=str | None,
        default=None,
        metavar="NAME",
        help="package.module:name of policies of your own to record: a callable that maps {agent: observation} to"
        " {agent: action}, or a class of such callables, one for each episode",
    )
    parser.add_argument(
        "--team",
        type=str,
        nargs="+",
        default=None,
        metavar="RUN",
        help="run directories or checkpoints of trained teams, which play one after the other with sampled actions;"
        " needs --output",
    )
    parser.add_argument(
        "--env",
        type=dict[str, Any] | None,
        default=None,
        help="settings of the task, as --env.SETTING VALUE, e.g. --env.observability independent for reacher",
    )
    parser.add_argument(
        "--behaviour",
        type=dict[str, Any] | None,
        default=None,
        help="settings of what plays a built-in dataset, as --behaviour.SETTING VALUE, e.g. --behaviour.mixed 0.3 for"
        " icg/conflicting",
    )
    parser.add_argument(
        "--transitions",
        type=int | None,
        default=None,
        metavar="N",
        help="minimum number of transitions; all episodes are complete (if null: the task's default)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="random seed")
    parser.add_argument(
        "--output",
        type=str | None,
        default=None,
        metavar="DIR",
        help="new directory for the dataset (if null: a folder in $MOMALIT_HOME)",
    )
    return parser


def quoted(path: Path) -> str:
    """Returns a path as a command-line argument, in quotes if it contains a space."""
    return f"'{path}'" if " " in str(path) else str(path)
