"""Progress bars of commands that write a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress


@contextmanager
def terminal_progress() -> Iterator[Progress]:
    """Shows the tasks that are added to it on standard error; nothing at all where that is not a terminal."""
    console = Console(stderr=True)
    console.quiet = not console.is_terminal  # before version 14.3, rich writes an empty line even when disabled
    with Progress(console=console, transient=True, disable=console.quiet) as progress:
        yield progress


@contextmanager
def progress_bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows one bar. Yields a function that advances it by a number of steps."""
    with terminal_progress() as progress:
        bar = progress.add_task(label, total=total)
        yield lambda steps: progress.advance(bar, steps)
