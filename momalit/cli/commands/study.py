"""The command ``study``: every run of a comparison, described in one file."""

from __future__ import annotations

import logging
from argparse import ArgumentError
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser
from rich.table import Table

from momalit.cli import configs
from momalit.cli.console import console
from momalit.cli.error_messages import one_line
from momalit.core.errors import UserError
from momalit.studies.execution import Engine, Job, LocalEngine, RayEngine, cores, run_jobs
from momalit.studies.grid import ORDER, Cell, Study, read_study
from momalit.studies.write_results import RESULT, write_cross_play, write_results

logger = logging.getLogger(__name__)

CROSS_PLAY = "cross_play.json"
ENGINES = ("local", "ray")


def run_study(words: list[str]) -> None:
    """Runs what is missing of a study, and collects its results.

    Raises:
        UserError: the words or the study make no sense, or a run failed.
        SystemExit: it was interrupted.
    """
    parser = _parser()
    try:
        chosen = parser.parse_args(words)
    except ArgumentError as error:
        raise UserError(one_line(error.message, [action.dest for action in parser._actions])) from error
    study = load_study(chosen.study)
    if chosen.engine not in ENGINES:
        raise UserError(f"--engine: found '{chosen.engine}', expected {' or '.join(ENGINES)}")
    at_once = cores() if chosen.jobs is None else chosen.jobs
    if at_once < 1:
        raise UserError(f"--jobs: found {at_once}, expected at least 1")
    directory = Path(chosen.output or Path("runs", "studies", study.name)).expanduser().resolve()
    if chosen.dry_run:
        console.print(_plan(study, directory))
        return
    engine: Engine = RayEngine(chosen.address) if chosen.engine == "ray" else LocalEngine(at_once)
    try:
        failed = execute(study, directory, engine)
    except KeyboardInterrupt:
        logger.info("interrupted; the same command goes on where each run was")
        raise SystemExit(130) from None
    logger.info("the results are in %s; compare them with: report %s", directory, directory)
    if failed:
        raise UserError(
            f"{len(failed)} of the study's processes failed, the first in {failed[0].directory} (see its log.txt);"
            " the same command tries them again"
        )


def load_study(name: str) -> Study:
    """The study of a file where you stand, or of one that ships.

    Raises:
        UserError: there is none, or it makes no sense, or a configuration that it names is missing.
    """
    path = configs.find(name, configs.studies(), "study")
    study = read_study(path, configs.read(path))
    for cell in study.cells:
        configs.split(cell.words)
    return study


def execute(study: Study, directory: Path, engine: Engine) -> list[Job]:
    """Runs what is missing, trainings first and then cross-play; the results are written as they come.

    Returns:
        the jobs that failed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    trainings = [_training(cell, directory) for cell in study.cells]
    done, failed = run_jobs(trainings, engine, lambda _: write_results(study, directory))
    write_results(study, directory)
    finished = {job.directory for job in done}
    games = {}
    for group, cells in study.groups.items():
        ready = [directory / cell.folder for cell in cells if directory / cell.folder in finished]
        if cells[0].method in study.cross_play and len(ready) == len(cells) > 1:
            games[group] = _cross_play(directory / group, ready)
    if games:
        failed += run_jobs(list(games.values()), engine)[1]
        write_cross_play(study, directory, {group: job.result for group, job in games.items()})
    return failed


def _training(cell: Cell, directory: Path) -> Job:
    run = directory / cell.folder
    words = ("fit", *cell.words, "--trainer.enable_progress_bar=false", f"--run_dir={run}")
    return Job(cell.name, words, run, run / RESULT, resumes=("--ckpt_path=last",))


def _cross_play(group: Path, runs: Sequence[Path]) -> Job:
    result = group / CROSS_PLAY
    return Job(
        f"cross-play of {group.name}",
        ("cross-play", *map(str, runs), f"--output={result}"),
        group / "cross_play",
        result,
    )


def _plan(study: Study, directory: Path) -> Table:
    table = Table(title=f"{len(study.cells)} runs of {study.name} in {directory}")
    for column in ORDER:
        table.add_column(column)
    table.add_column("seeds")
    table.add_column("done", justify="right")
    for cells in study.groups.values():
        done = sum((directory / cell.folder / RESULT).is_file() for cell in cells)
        first = cells[0]
        seeds = ", ".join(str(cell.seed) for cell in cells)
        table.add_row(*(getattr(first, axis) for axis in ORDER), seeds, f"{done} of {len(cells)}")
    return table


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="momalit study",
        usage="python main.py study FILE [--output DIR] [--jobs N] [--engine ray [--address HOST:PORT]] [--dry_run]",
        description="Runs a grid of tasks, datasets, methods, settings and seeds. What is done already is skipped and"
        " what was interrupted goes on, so the same command finishes a study whenever it is given.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("study", type=str, metavar="FILE", help="the study, e.g. studies/agreement_icg.yaml")
    parser.add_argument(
        "--output", type=str | None, default=None, metavar="DIR", help="its folder (default: runs/studies/NAME)"
    )
    parser.add_argument("--jobs", type=int | None, default=None, help="runs at a time (default: one per core)")
    parser.add_argument(
        "--engine", type=str, default="local", help="local, or ray for a cluster's machines (default: local)"
    )
    parser.add_argument(
        "--address", type=str | None, default=None, help="of the Ray cluster (default: one on this machine)"
    )
    parser.add_argument("--dry_run", action="store_true", help="list the runs and do nothing")
    return parser
