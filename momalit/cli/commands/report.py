"""The command ``report``: compares the runs of a study in tables and figures."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jsonargparse import ArgumentParser

from momalit.cli.console import print_table
from momalit.cli.error_messages import parse_arguments
from momalit.core.errors import UserError
from momalit.training.run_directory import write_text

logger = logging.getLogger(__name__)


def run_report(arguments: list[str]) -> None:
    """Writes the report of a study and prints its tables.

    Args:
        arguments: the command-line arguments after ``report``.

    Raises:
        UserError: an argument is invalid, or the results cannot be read.
    """
    options = parse_arguments(_parser(), arguments)
    directory = Path(options.study).expanduser()
    from momalit.studies.run_page import is_run, write_run_page

    output = directory if options.output is None else Path(options.output).expanduser()
    if is_run(directory):
        with _writing(output):
            logger.info("the report is in %s", write_run_page(directory, output, options.title))
        return
    write_report(directory, output, options.title)
    logger.info("the report is in %s and %s", output / "report.html", output / "report.md")


def write_report(directory: Path, output: Path, title: str | None = None) -> None:
    """Writes ``report.md``, ``report.html``, ``figures/`` and a copy of the results, and prints the tables.

    Args:
        directory: the study's folder.
        output: folder of the report. If it is the study's folder, the results are not copied.
        title: heading of the report. Default: the study's title.

    Raises:
        UserError: the results cannot be read, or the folder cannot be written.
    """
    from momalit.studies.figures import figures
    from momalit.studies.load_results import read_results
    from momalit.studies.report_page import FIGURES, Figure, markdown, page
    from momalit.studies.tables import all_tables
    from momalit.studies.write_results import FILES

    results = read_results(directory)
    drawn = [Figure(*figure) for figure in figures(results)]
    tables = list(all_tables(results))
    texts = {"report.md": markdown(results, drawn, title), "report.html": page(results, drawn, title)}
    with _writing(output):
        (output / FIGURES).mkdir(parents=True, exist_ok=True)
        for figure in drawn:
            write_text(output / FIGURES / f"{figure.name}.svg", figure.svg)
        for name, text in texts.items():
            write_text(output / name, text)
        for name in FILES:
            if output.resolve() != directory.resolve() and (directory / name).is_file():
                shutil.copyfile(directory / name, output / name)
    for content in tables:
        print_table(content)


@contextmanager
def _writing(output: Path) -> Iterator[None]:
    """Turns errors of the file system during the block into one about ``--output``."""
    try:
        yield
    except OSError as error:
        raise UserError(f"--output: {output} cannot be written ({error.strerror})") from error


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="momalit report",
        usage="python main.py report DIR [--output DIR] [--title TEXT]",
        description="Compares the runs of a study in tables and figures, and writes report.md and report.html. For a"
        " single run's directory, writes its report.html.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("study", type=str, metavar="DIR", help="a study's folder, or a run's")
    parser.add_argument(
        "--output",
        type=str | None,
        default=None,
        metavar="DIR",
        help="folder for the report and a copy of a study's results (if null: the study's folder, or the run's)",
    )
    parser.add_argument(
        "--title",
        type=str | None,
        default=None,
        metavar="TEXT",
        help="heading of the report (if null: the study's title, or the run's method, dataset and seed)",
    )
    return parser
