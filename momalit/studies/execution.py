"""Runs a study: one process per run, several at a time, and none that is done already."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from momalit.core.errors import UserError
from momalit.training.run_directory import write_json

logger = logging.getLogger(__name__)

COMMAND = "command.json"  # in a job's directory: the words it was given, which must stay the same
LOG = "log.txt"
_STOPPED = -int(signal.SIGTERM)


@dataclass(frozen=True)
class Job:
    """One process.

    Args:
        name: for people.
        words: of the command line, as they will be remembered.
        directory: where it works and logs, absolute.
        result: the file that is there when it is done, absolute.
        resumes: the words that are added where an unfinished one is to go on.
    """

    name: str
    words: tuple[str, ...]
    directory: Path
    result: Path
    resumes: tuple[str, ...] = ()

    @property
    def done(self) -> bool:
        return self.result.is_file()

    def require_same(self) -> None:
        """Refuses results that other settings gave.

        Raises:
            UserError: naming the first word that differs.
        """
        path = self.directory / COMMAND
        if not path.is_file():
            return
        before, now = json.loads(path.read_text(encoding="utf-8")), list(self.words)
        if before != now:
            old = [word for word in before if word not in now]
            new = [word for word in now if word not in before]
            raise UserError(
                f"{self.directory}: was run with {' '.join(old) or 'fewer settings'}, and the study now says"
                f" {' '.join(new) or 'fewer'}; remove that folder, or name another with --output"
            )

    def run(self, started: Callable[[subprocess.Popen[bytes]], Any] = lambda _: None) -> int:
        """Runs to the end, and appends what the process says to ``log.txt``.

        Args:
            started: is given the process.

        Returns:
            its exit code.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        write_json(self.directory / COMMAND, self.words)
        goes_on = any(self.directory.glob("**/checkpoints/*.ckpt"))
        words = (*self.words, *(self.resumes if goes_on else ()))
        with (self.directory / LOG).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "momalit", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # an interruption is passed on by the study, once
            )
            started(process)
            return process.wait()

    @property
    def last_words(self) -> str:
        """The last line of the log."""
        try:
            lines = (self.directory / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        except OSError:
            return ""
        return lines[-1].strip() if lines else ""


class Engine(Protocol):
    """Where jobs run."""

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, int]]:
        """Runs all; gives each with its exit code as it ends."""
        ...


class LocalEngine:
    """Processes on this machine.

    Args:
        at_once: how many.
    """

    def __init__(self, at_once: int) -> None:
        self.at_once = at_once
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stop = threading.Event()

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, int]]:
        """Runs all; an interruption ends the processes after their epoch, whose checkpoints are kept."""
        with ThreadPoolExecutor(self.at_once) as pool, _interruptible():
            futures = {pool.submit(self._run, job): job for job in jobs}
            try:
                pending: set[Future[int]] = set(futures)
                while pending:
                    ended, pending = wait(pending, return_when=FIRST_COMPLETED)
                    for future in ended:
                        yield futures[future], future.result()
            except BaseException:
                self._stop.set()
                for future in futures:
                    future.cancel()
                for process in list(self._running):
                    process.terminate()
                raise

    def _run(self, job: Job) -> int:
        if self._stop.is_set():
            return _STOPPED
        process: list[subprocess.Popen[bytes]] = []

        def started(new: subprocess.Popen[bytes]) -> None:
            process.append(new)
            self._running.add(new)
            if self._stop.is_set():
                new.terminate()

        try:
            return job.run(started)
        finally:
            self._running.difference_update(process)


class RayEngine:
    """Processes on the machines of a Ray cluster, which must share the study's folder.

    Args:
        address: of the cluster, as ``ray.init`` takes it; None starts one on this machine.
    """

    def __init__(self, address: str | None = None) -> None:
        try:
            import ray  # type: ignore[import-not-found,unused-ignore]
        except ImportError as error:
            raise UserError("--engine ray: found no package ray, expected it: pip install 'momalit[ray]'") from error
        self._ray = ray
        if not ray.is_initialized():
            ray.init(address=address, log_to_driver=False, include_dashboard=False)

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, int]]:
        """Runs all, one core each."""
        remote = self._ray.remote(num_cpus=1, max_retries=0)(Job.run)
        waiting = {remote.remote(job): job for job in jobs}
        try:
            while waiting:
                (ended,), _ = self._ray.wait(list(waiting), num_returns=1)
                yield waiting.pop(ended), self._ray.get(ended)
        except BaseException:
            for reference in waiting:
                self._ray.cancel(reference)
            raise


def run_jobs(
    jobs: Sequence[Job], engine: Engine, ended: Callable[[Job], Any] = lambda _: None
) -> tuple[list[Job], list[Job]]:
    """Runs those that are not done, and goes on where one fails.

    Args:
        jobs: all.
        engine: where.
        ended: is told of each that has just ended well.

    Returns:
        those that are done, and those that failed.

    Raises:
        UserError: a job that is done was run with other settings.
    """
    for job in jobs:
        job.require_same()
    missing = [job for job in jobs if not job.done]
    failed = []
    if len(missing) < len(jobs):
        logger.info("%d of %d are done already", len(jobs) - len(missing), len(jobs))
    began = time.monotonic()
    for number, (job, code) in enumerate(engine.run(missing), 1):
        left = (time.monotonic() - began) / number * (len(missing) - number)
        if code == 0 and job.done:
            logger.info("%d/%d %s (%s left)", number, len(missing), job.name, clock(left))
            ended(job)
        else:
            failed.append(job)
            logger.warning("%d/%d %s failed (exit code %d): %s", number, len(missing), job.name, code, job.last_words)
    return [job for job in jobs if job.done], failed


def clock(seconds: float) -> str:
    """A duration for people, e.g. ``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Lets SIGTERM end the study as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
