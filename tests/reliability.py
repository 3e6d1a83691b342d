"""A plugin that writes ``docs/reliability.md`` from the tests that inject faults: ``make reliability``.

A test says what it does in a mark, ``@pytest.mark.fault(fault, injected, outcome, times)``; ``times`` is the number of
injections within the test. The table adds up the tests of the same fault, and counts those that failed. An existing
file keeps the rows whose tests did not run, so that the slow tests can run on their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HEAD = """# Reliability

What happens when something goes wrong. Every row is a test that injects the fault; `make reliability` runs them all and
writes this table.

| fault | how it is injected | times | outcome | failed |
|---|---|---|---|---|
"""


class Table:
    """Collects the outcome of every test with the mark ``fault``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[tuple[str, str, str], list[int]] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
        report: Any = yield
        mark = item.get_closest_marker("fault")
        if mark is not None and not report.skipped and (report.when == "call" or report.failed):
            fault, injected, outcome = mark.args
            row = self.rows.setdefault((fault, injected, outcome), [0, 0])
            row[0] += mark.kwargs.get("times", 1)
            row[1] += report.failed
        return report

    def pytest_sessionfinish(self) -> None:
        rows = self._earlier() | {
            (fault, injected): f"| {fault} | {injected} | {times:,} | {outcome} | {failed} |\n"
            for (fault, injected, outcome), (times, failed) in self.rows.items()
        }
        self.path.write_text(HEAD + "".join(row for _, row in sorted(rows.items())), encoding="utf-8")

    def _earlier(self) -> dict[tuple[str, ...], str]:
        """The rows of the existing file, by what is injected and how."""
        text = self.path.read_text(encoding="utf-8") if self.path.is_file() else ""
        rows = text.partition("|---|---|---|---|---|\n")[2].splitlines(keepends=True)
        return {tuple(row[2:].split(" | ")[:2]): row for row in rows}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--reliability", metavar="FILE", help="write a table of the injected faults to this file")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.reliability:
        config.pluginmanager.register(Table(Path(config.option.reliability)))
