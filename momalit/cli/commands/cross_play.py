"""The command ``cross-play``: evaluates teams whose agents come from different runs."""

from __future__ import annotations

import logging
from pathlib import Path

from jsonargparse import ArgumentParser

from momalit.cli.console import console
from momalit.cli.error_messages import parse_arguments
from momalit.cli.own_runs import require_named_env, require_own
from momalit.core.checks import require_choice, require_numbers
from momalit.training.cpu import configure_cpu
from momalit.training.run_directory import RunDirectory, versions, write_json

logger = logging.getLogger(__name__)


def run_cross_play(arguments: list[str]) -> None:
    """Evaluates the same-seed and cross-play teams of several runs and prints their returns.

    Args:
        arguments: the command-line arguments after ``cross-play``.

    Raises:
        UserError: an argument is invalid, or the runs cannot be combined.
    """
    options = parse_arguments(_parser(), arguments)
    require_numbers("--", {name: options[name] for name in ("episodes", "teams")}, least=1)
    require_choice("--checkpoint", options.checkpoint, ("last", "best"))
    configure_cpu()
    from callbacks.cross_play import cross_play, cross_play_table
    from momalit.policies.team_policy import team_of

    runs = [Path(run) for run in options.runs]
    for run in map(RunDirectory, runs):
        path = run.checkpoint(options.checkpoint)
        if run.config.is_file() and path.is_file():
            require_own(run.config)
            require_named_env(run.config, team_of(path))
    teams = cross_play(runs, options.checkpoint, options.episodes, options.teams, options.seed)
    if options.output is not None:
        path = Path(options.output)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"runs": [str(run) for run in runs], "checkpoint": options.checkpoint}
        write_json(path, {**content, "episodes": options.episodes, "teams": teams, "versions": versions()})
        logger.info("the returns are in %s", path)
    console.print(cross_play_table(teams))


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="momalit cross-play",
        usage="python main.py cross-play RUN RUN [RUN ...] [--checkpoint last|best] [--episodes N] [--teams N]"
        " [--seed N] [--output FILE]",
        description="Evaluates same-seed teams, whose agents come from one run, and cross-play teams, whose agents come"
        " from runs with different seeds. Cross-play teams score lower if each run learned a convention of its own.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument(
        "runs", type=str, nargs="+", metavar="RUN", help="directories of at least two runs with different seeds"
    )
    parser.add_argument(
        "--checkpoint", type=str, default="last", metavar="NAME", help="checkpoint of each run: last or best"
    )
    parser.add_argument("--episodes", type=int, default=100, metavar="N", help="episodes per team, on the test seeds")
    parser.add_argument(
        "--teams",
        type=int,
        default=25,
        metavar="N",
        help="maximum number of teams; if there are more combinations, the cross-play teams are sampled",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="random seed for sampling teams")
    parser.add_argument(
        "--output", type=str | None, default=None, metavar="FILE", help="JSON file for the returns (if null: none)"
    )
    return parser
