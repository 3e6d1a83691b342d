"""The command ``import``: converts a table of a team's steps, or a single-agent dataset, into a team's dataset."""

from __future__ import annotations

import logging
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from momalit.cli.commands.collect import quoted
from momalit.cli.error_messages import parse_arguments
from momalit.core.errors import UserError

logger = logging.getLogger(__name__)

# The options that only some sources use, with their defaults.
OPTIONS = {"layout": None, "episode_length": None, "reward": "mean", "env": None, "columns": None}


def run_import(arguments: list[str]) -> None:
    """Imports a dataset and logs its path.

    Args:
        arguments: the command-line arguments after ``import``.

    Raises:
        UserError: an argument is invalid, or the source cannot be imported.
    """
    options = parse_arguments(_parser(), _expand_env_name(arguments))
    from datamodules.readers.npy_arrays import has_agent_arrays
    from datamodules.readers.sources import require_source
    from datamodules.readers.table_file import is_table
    from datamodules.readers.team_arrays import has_agents_in_one_array

    if is_table(options.source):
        _refuse_unused(options, "a table", ("layout", "reward"))
        path = _import_table(options)
    elif has_agent_arrays(Path(options.source).expanduser()):
        from datamodules.builders.import_arrays import import_arrays

        _refuse_unused(options, "arrays per agent", ("episode_length", "reward"))
        path = import_arrays(options.source, options.episode_length, options.output, options.reward)
    elif has_agents_in_one_array(Path(options.source).expanduser()):
        from datamodules.builders.import_team_arrays import import_team_arrays

        _refuse_unused(options, "one array for all agents", ("reward",))
        path = import_team_arrays(options.source, options.reward, options.output)
    elif options.layout is not None:
        raise UserError(f"--layout: found it with {options.source}, expected a table: .csv, .tsv, .csv.gz or .parquet")
    elif "name" not in (options.env or {}):
        require_source(options.source)
        raise UserError(
            f"env: missing, expected the team's task, e.g. --env ant, if {options.source} is a single agent's dataset;"
            " it is none of the other layouts (see import --help)"
        )
    else:
        from datamodules.builders.import_dataset import import_dataset

        _refuse_unused(options, "a single agent's dataset", ("env", "columns"))
        path = import_dataset(options.source, dict(options.env), options.columns, options.output)
    logger.info("the dataset is in %s; train on it with --data.dataset %s", path, quoted(path))


def _refuse_unused(options: Any, source: str, used: Sequence[str]) -> None:
    """Checks that no option is given that the source has no use for.

    Raises:
        UserError: there is one.
    """
    for name, default in OPTIONS.items():
        if name not in used and options[name] != default:
            hint = "; name an environment in training" if name == "env" else ""
            known = " and ".join(f"--{option}" for option in used)
            raise UserError(f"--{name}: found it with {source}, expected no more than {known}{hint}")


def _import_table(options: Any) -> Path:
    from datamodules.builders.import_table import import_table

    if options.layout is None:
        raise UserError(
            f"--layout: missing, expected a YAML file that says what the columns of {options.source} are; import --help"
            " shows one"
        )
    return import_table(options.source, options.layout, options.output, options.reward)


DESCRIPTION = """\
Converts a table of a team's steps, or a single-agent dataset, into a team's dataset.

A table (.csv, .tsv, .csv.gz, .parquet) has one row per step, with columns of each agent:

  python main.py import market.csv --layout market.yaml --output data/market

  # market.yaml
  episode: day
  reward: profit
  terminated: bankrupt
  agents:
    buyer: {observations: [price, stock], actions: [order]}
    seller: {observations: [price, demand], actions: [offer]}

or one row per step and agent:

  # swarm.yaml
  episode: flight
  step: t
  agent: drone
  observations: [x, y, vx, vy]
  actions: [ax, ay]
  bounds: [-1, 1]
  reward: score

Arrays per agent, as in OMAR's datasets (a folder of NPY files or an NPZ file with obs_0, acs_0, rews_0, next_obs_0,
dones_0, obs_1, ...):

  python main.py import simple_spread/medium/seed_0_data --episode_length 25 --output data/spread

One array for all agents, as in OMIGA's HDF5 files (o, s, a, r, d) and OG-MARL's vaults (pip install momalit[vaults]):

  python main.py import 6x1-HalfCheetah-v2.hdf5 --output data/cheetah
  python main.py import vaults/smac_v1/3m.vlt/Good --output data/3m

A single-agent dataset (D4RL's or Minari's HDF5) needs a task whose agents share the robot's actuators:

  python main.py import ant_medium-v2.hdf5 --env ant --env.observability partial --output data/ant"""


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="momalit import",
        usage="python main.py import TABLE --layout FILE [--output DIR]\n"
        "       python main.py import DATASET --env TASK [--env.SETTING VALUE ...] [--columns FIRST:END]"
        " [--output DIR]",
        description=DESCRIPTION,
        formatter_class=RawDescriptionHelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument(
        "source",
        type=str,
        metavar="SOURCE",
        help="a table; a folder of NPY files or an NPZ file; an HDF5 file of OMIGA; a vault of OG-MARL; an HDF5 file in"
        " D4RL's format, the directory of a Minari"
        " dataset, or the name of a Minari dataset, e.g. mujoco/ant/medium-v0",
    )
    parser.add_argument(
        "--layout",
        type=str | None,
        default=None,
        metavar="FILE",
        help="YAML file that says what the columns of a table are: episode, step, agent, agents, observations, actions,"
        " state, reward, terminated, truncated, discrete, choices, bounds, task",
    )
    parser.add_argument(
        "--episode_length",
        type=int | None,
        default=None,
        metavar="N",
        help="steps of every episode, for arrays per agent whose flags do not say where episodes end",
    )
    parser.add_argument(
        "--reward",
        type=str,
        default="mean",
        metavar="HOW",
        help="the team's reward where each agent has one, or a table several: mean, sum, or the name of one",
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
