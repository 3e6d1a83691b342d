"""The command ``study``: executes all runs of a comparison that one file describes."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from rich.table import Table

from momalit.cli import configs
from momalit.cli.console import console
from momalit.cli.error_messages import parse_arguments
from momalit.core.checks import require_choice, require_numbers
from momalit.core.errors import INTERRUPTED, UserError
from momalit.studies.execution import Engine, Job, LocalEngine, RayEngine, run_jobs
from momalit.studies.grid import ORDER, Cell, Study, read_study
from momalit.studies.write_results import RESULT, WITHOUT_ENVIRONMENT, write_cross_play, write_results
from momalit.training.cpu import cores

logger = logging.getLogger(__name__)

CROSS_PLAY = "cross_play.json"
ENGINES = ("local", "ray")


def run_study(arguments: list[str]) -> None:
    """Executes the unfinished runs of a study and collects its results.

    Args:
        arguments: the command-line arguments after ``study``.

    Raises:
        UserError: an argument or the study is invalid, or a run failed.
        SystemExit: the command was interrupted.
    """
    options = parse_arguments(_parser(), arguments)
    study = load_study(options.study)
    require_choice("--engine", options.engine, ENGINES)
    n_parallel = cores() if options.jobs is None else options.jobs
    require_numbers("--", {"jobs": n_parallel}, least=1)
    directory = Path(options.output or Path("runs", "studies", study.name)).expanduser().resolve()
    if options.dry_run:
        console.print(_plan(study, directory))
        return
    engine: Engine = RayEngine(options.address) if options.engine == "ray" else LocalEngine(n_parallel)
    try:
        failed = execute(study, directory, engine)
    except KeyboardInterrupt:
        logger.info("interrupted; repeat the command to resume")
        raise SystemExit(INTERRUPTED) from None
    if failed:
        raise UserError(
            f"{len(failed)} of the study's jobs failed, the first in {failed[0].directory} (see log.txt there); repeat"
            " the command to run them again"
        )


def load_study(name: str) -> Study:
    """Reads a study from a file or by the name of a built-in one.

    Raises:
        UserError: the file is missing or invalid, or a configuration that it names is.
    """
    path = configs.find(name, configs.studies(), "study")
    study = read_study(path, configs.read(path))
    for cells in study.groups.values():
        configs.split_arguments(cells[0].arguments)
    return study


def execute(study: Study, directory: Path, engine: Engine) -> list[Job]:
    """Executes the unfinished jobs: first all trainings, then cross-play where teams can play.

    Updates the results after each training.

    Args:
        study: the study.
        directory: absolute path of the study's folder.
        engine: runs the jobs.

    Returns:
        the jobs that failed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    training_jobs = [_training_job(cell, directory) for cell in study.cells]
    done, failed = run_jobs(training_jobs, engine, lambda _: write_results(study, directory))
    rows = write_results(study, directory)
    finished = {job.directory for job in done}
    cross_play_jobs = {}
    for group, cells in study.groups.items():
        runs = [directory / cell.folder for cell in cells if directory / cell.folder in finished]
        complete = len(runs) == len(cells) > 1
        if complete and cells[0].method in study.cross_play and all(map(_was_played, runs)):
            cross_play_jobs[group] = _cross_play_job(directory / group, runs)
    if cross_play_jobs:
        failed += run_jobs(list(cross_play_jobs.values()), engine)[1]
        write_cross_play(study, directory, {group: job.result for group, job in cross_play_jobs.items()})
    _conclude(rows, directory)
    return failed


def _was_played(run: Path) -> bool:
    """Returns whether a finished run's team has played in an environment, as cross-play teams would have to."""
    return json.loads((run / RESULT).read_text(encoding="utf-8"))["return_last"] is not None


def _conclude(rows: Sequence[Mapping[str, Any]], directory: Path) -> None:
    """Logs where the results are, and which command compares them."""
    compare = f"report {directory}"
    if without := sum(row["return_last"] is None for row in rows):
        logger.warning("%d of %d runs have no real returns, because %s", without, len(rows), WITHOUT_ENVIRONMENT)
        compare = f"estimate {directory / 'runs'}/*/*; report needs real returns of all runs"
    logger.info("the results are in %s; compare them with: %s", directory, compare)


def _training_job(cell: Cell, directory: Path) -> Job:
    run = directory / cell.folder
    arguments = ("fit", *cell.arguments, "--trainer.enable_progress_bar=false", f"--run_dir={run}")
    return Job(cell.name, arguments, run, run / RESULT, resume_arguments=("--ckpt_path=last",))


def _cross_play_job(group: Path, runs: Sequence[Path]) -> Job:
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
        description="Executes a grid of tasks, datasets, methods, settings and seeds. Finished runs are skipped and"
        " interrupted ones are resumed, so repeat the command to continue a study.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument(
        "study",
        type=str,
        metavar="FILE",
        help="the study: a file or the name of a built-in one, e.g. studies/agreement_icg.yaml",
    )
    parser.add_argument(
        "--output",
        type=str | None,
        default=None,
        metavar="DIR",
        help="folder of the study (if null: runs/studies/NAME)",
    )
    parser.add_argument(
        "--jobs",
        type=int | None,
        default=None,
        metavar="N",
        help="number of parallel runs with --engine local (if null: one per core)",
    )
    parser.add_argument(
        "--engine",
        type=str,
        default="local",
        metavar="NAME",
        help="local: processes on this machine; ray: processes on a Ray cluster",
    )
    parser.add_argument(
        "--address",
        type=str | None,
        default=None,
        metavar="HOST:PORT",
        help="address of the Ray cluster (if null: start one on this machine)",
    )
    parser.add_argument("--dry_run", action="store_true", help="list the runs without executing them")
    return parser
