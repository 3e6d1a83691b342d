"""The record of a run: its directory belongs to one process, and ``run.json`` says what became of the run."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from momalit.cli.own_runs import remember
from momalit.core.errors import INTERRUPTED, DivergedError, UserError
from momalit.core.files import locked, remove_partial
from momalit.training.checkpoints import LAST
from momalit.training.run_directory import INHERITED, RunDirectory

logger = logging.getLogger(__name__)


@contextmanager
def recorded_run(
    run: RunDirectory, record: Mapping[str, Any], config: str, resuming: bool, started: float
) -> Iterator[None]:
    """Creates the run directory and keeps the status in ``run.json`` up to date. Only the first process calls it.

    Args:
        run: the run's directory.
        record: entries of ``run.json``.
        config: content of ``config.yaml``.
        resuming: whether the directory may contain a run already.
        started: time at which the command started, in seconds since the epoch, minus what earlier ones took.

    Raises:
        UserError: another process is using the directory, or it cannot be written.
    """
    with ExitStack() as stack:
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            alone = stack.enter_context(locked(run.path / "run"))
        except OSError as error:
            raise UserError(f"run_dir: {run.path} cannot be written ({error.strerror})") from error
        if not alone:
            raise UserError(
                f"run_dir: {run.path} is in use by another process (see .run.lock there), expected a free one"
            )
        if not resuming:
            run.require_free()  # again: another run may have ended since the command started
        else:
            _require_same_data(run, record)
        remove_partial(run.checkpoints)
        run.begin({**run.record, **record}, config)
        remember(run.config)
        stack.enter_context(_inherited(run))
        stack.enter_context(_status(run, started))
        yield


def _require_same_data(run: RunDirectory, record: Mapping[str, Any]) -> None:
    """Checks that a resumed run continues with the data that it began with."""
    before, now = (entries.get("dataset") or {} for entries in (run.record, record))
    if before.get("fingerprint", now.get("fingerprint")) != now.get("fingerprint"):
        raise UserError(
            f"data: {now['dataset']} differs from the data with which {run.path} began (contents, split or"
            f" environment; fingerprint {str(now['fingerprint'])[:12]}, expected {str(before['fingerprint'])[:12]});"
            " continue with the same data, or give the checkpoint's path and a new --run_dir"
        )


@contextmanager
def _inherited(run: RunDirectory) -> Iterator[None]:
    """Tells the processes that Lightning starts which directory was chosen."""
    os.environ[INHERITED] = str(run.path.resolve())
    try:
        yield
    finally:
        del os.environ[INHERITED]


@contextmanager
def _status(run: RunDirectory, started: float) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        run.update(status="interrupted", seconds=_seconds(started))
        logger.info("interrupted; resume with: fit --run_dir %s --ckpt_path last", run.path)
        if any(isinstance(error, KeyboardInterrupt) for error in (stop, stop.__context__)):  # Lightning exits with 1
            raise SystemExit(INTERRUPTED) from None
        raise
    except BaseException as error:
        run.update(status="failed", seconds=_seconds(started))
        last = run.checkpoint(LAST)
        if isinstance(error, DivergedError) and last.is_file():
            logger.info("the checkpoint of the epoch before is kept: %s", last)
        raise
    run.update(status="finished", seconds=_seconds(started))
    logger.info("run finished; its directory is %s", run.path)


def _seconds(started: float) -> float:
    return round(time.time() - started, 1)
