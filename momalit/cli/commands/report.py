"""The command ``report``: compares the runs of a study."""

from __future__ import annotations

import logging
import shutil
from argparse import ArgumentError
from pathlib import Path

import rich.table
from jsonargparse import ArgumentParser

from momalit.cli.console import console
from momalit.cli.error_messages import one_line
from momalit.core.errors import UserError
from momalit.training.run_directory import write_text

logger = logging.getLogger(__name__)


def run_report(words: list[str]) -> None:
    """Writes the report that the words after ``report`` ask for, and shows its first tables.

    Raises:
        UserError: the words make no sense, or the results cannot be read.
    """
    parser = _parser()
    try:
        chosen = parser.parse_args(words)
    except ArgumentError as error:
        raise UserError(one_line(error.message, [action.dest for action in parser._actions])) from error
    directory = Path(chosen.study).expanduser()
    output = directory if chosen.output is None else Path(chosen.output).expanduser()
    write_report(directory, output, chosen.title)
    logger.info("the report is in %s and %s", output / "report.html", output / "report.md")


def write_report(directory: Path, output: Path, title: str | None = None) -> None:
    """Writes ``report.md``, ``report.html`` and ``figures/``, with the results beside them, and shows the tables.

    Raises:
        UserError: the results cannot be read, or the folder not be written.
    """
    from momalit.studies.figures import figures
    from momalit.studies.load_results import read_results
    from momalit.studies.report_page import FIGURES, Figure, markdown, page
    from momalit.studies.tables import all_tables
    from momalit.studies.write_results import CROSS_PLAY, CURVES, RECORDS, RUNS, STUDY

    results = read_results(directory)
    drawn = [Figure(*figure) for figure in figures(results)]
    try:
        (output / FIGURES).mkdir(parents=True, exist_ok=True)
        for figure in drawn:
            write_text(output / FIGURES / f"{figure.name}.svg", figure.svg)
        write_text(output / "report.md", markdown(results, drawn, title))
        write_text(output / "report.html", page(results, drawn, title))
        for name in (RUNS, RECORDS, CURVES, CROSS_PLAY, STUDY):
            if output.resolve() != directory.resolve() and (directory / name).is_file():
                shutil.copyfile(directory / name, output / name)
    except OSError as error:
        raise UserError(f"--output: {output} cannot be written ({error.strerror})") from error
    for content in all_tables(results):
        table = rich.table.Table(title=content.title)
        for number, name in enumerate(content.header):
            table.add_column(name, justify="right" if number else "left")
        for number, row in enumerate(content.rows):
            table.add_row(*(cell.strip("*") for cell in row), style="bold" if number in content.best else None)
        console.print(table)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="momalit report",
        usage="python main.py report DIR [--output DIR] [--title TEXT]",
        description="Compares the runs of a study: tables, figures, one page in Markdown and one in HTML.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("study", type=str, metavar="DIR", help="the study's folder, which holds results.csv")
    parser.add_argument(
        "--output",
        type=str | None,
        default=None,
        metavar="DIR",
        help="where the report goes, with a copy of the results (default: the study's folder)",
    )
    parser.add_argument("--title", type=str | None, default=None, help="heading (default: the study's)")
    return parser
