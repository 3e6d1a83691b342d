"""The command ``inspect``: what is in a dataset."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from momalit.cli.console import console, print_table
from momalit.cli.error_messages import parse_arguments
from momalit.core.errors import UserError
from momalit.training.run_directory import write_text

logger = logging.getLogger(__name__)


def run_inspect(arguments: list[str]) -> None:
    """Prints the tables and the verdict of an inspection, and writes them as a page.

    Args:
        arguments: the command-line arguments after ``inspect``.

    Raises:
        UserError: an argument is invalid, or the dataset cannot be read.
    """
    options = parse_arguments(_parser(), arguments)
    from datamodules import OfflineDataModule
    from datamodules.inspection import inspect
    from momalit.studies.plots import histograms
    from momalit.studies.report_page import Figure, plain_page
    from momalit.studies.tables import Table

    data = OfflineDataModule(options.dataset, env=options.env, behaviour=options.behaviour)
    found = inspect(data.contents)
    for section in found.sections:
        print_table(Table(section.title, section.header, section.rows))
    for sentence in found.verdict:
        console.print(f"- {sentence}", highlight=False, markup=False)
    if options.output is None:
        return
    output = Path(options.output).expanduser()
    varying = {"return of an episode": found.returns, "steps of an episode": found.lengths}
    drawn = histograms({name: values for name, values in varying.items() if len(set(values)) > 1} or varying)
    tables = [Table(section.title, section.header, section.rows) for section in found.sections]
    caption = "Distribution of returns and lengths over the episodes."
    page = plain_page(f"Dataset {options.dataset}", found.verdict, tables, [Figure("histograms", caption, drawn)])
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_text(output, page)
    except OSError as error:
        raise UserError(f"--output: {output} cannot be written ({error.strerror})") from error
    logger.info("the page is in %s", output)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="momalit inspect",
        usage="python main.py inspect DATASET [--env.SETTING VALUE ...] [--behaviour.SETTING VALUE ...]"
        " [--output FILE.html]",
        description="Shows what is in a dataset: sizes, returns, columns, actions, conventions, and what to expect of"
        " learning from it.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("dataset", type=str, metavar="DATASET", help="as --data.dataset: a name, a file or a directory")
    parser.add_argument("--env", type=dict[str, Any] | None, default=None, help="settings of the task, as in training")
    parser.add_argument(
        "--behaviour",
        type=dict[str, Any] | None,
        default=None,
        help="settings of what plays a built-in dataset, as in training",
    )
    parser.add_argument(
        "--output", type=str | None, default=None, metavar="FILE", help="also write a page (HTML) with figures"
    )
    return parser
