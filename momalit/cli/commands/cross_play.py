"""The command ``cross-play``: teams stitched from the agents of several runs."""

from __future__ import annotations

import logging
from argparse import ArgumentError
from pathlib import Path

from jsonargparse import ArgumentParser

from momalit.cli.console import console
from momalit.cli.error_messages import one_line
from momalit.core.errors import UserError
from momalit.training.cpu import configure_cpu
from momalit.training.run_directory import versions, write_json

logger = logging.getLogger(__name__)


def run_cross_play(words: list[str]) -> None:
    """Plays the teams that the words after ``cross-play`` ask for, and shows what they score.

    Raises:
        UserError: the words make no sense, or the runs do not fit each other.
    """
    parser = _parser()
    try:
        chosen = parser.parse_args(words)
    except ArgumentError as error:
        raise UserError(one_line(error.message, [action.dest for action in parser._actions])) from error
    for name in ("episodes", "teams"):
        if chosen[name] < 1:
            raise UserError(f"--{name}: found {chosen[name]}, expected at least 1")
    if chosen.checkpoint not in ("last", "best"):
        raise UserError(f"--checkpoint: found '{chosen.checkpoint}', expected last or best")
    configure_cpu()
    from callbacks.cross_play import cross_play, cross_play_table

    teams = cross_play(chosen.runs, chosen.checkpoint, chosen.episodes, chosen.teams, chosen.seed)
    if chosen.output is not None:
        path = Path(chosen.output)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"runs": [str(run) for run in chosen.runs], "checkpoint": chosen.checkpoint}
        write_json(path, {**content, "episodes": chosen.episodes, "teams": teams, "versions": versions()})
        logger.info("the returns are in %s", path)
    console.print(cross_play_table(teams))


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="momalit cross-play",
        usage="python main.py cross-play RUN RUN [RUN ...] [--checkpoint best] [--episodes N] [--output FILE]",
        description="Plays teams whose agents come from runs of different seeds: agents that agreed by luck, or only"
        " with each other, score less there than in their own team.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="directories of finished runs")
    parser.add_argument("--checkpoint", type=str, default="last", help="last or best (default: last)")
    parser.add_argument("--episodes", type=int, default=100, help="per team, on the test seeds (default: 100)")
    parser.add_argument(
        "--teams", type=int, default=25, help="most teams, drawn at random where there are more (default: 25)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of that draw (default: 0)")
    parser.add_argument(
        "--output", type=str | None, default=None, metavar="FILE", help="JSON file for the returns (default: none)"
    )
    return parser
