"""Runs the jobs of a study in parallel, one process per job. Finished jobs are skipped."""

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
from momalit.core.files import locked
from momalit.training.forks import PARALLEL_VARIABLE
from momalit.training.run_directory import write_json

logger = logging.getLogger(__name__)

COMMAND = "command.json"  # in a job's directory: its command-line arguments, which must not change
LOG = "log.txt"
_TERMINATED = -int(signal.SIGTERM)
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Job:
    """A command that runs in its own process.

    Args:
        name: name in messages.
        arguments: command-line arguments, as stored in ``command.json``.
        directory: absolute path of the directory for its logs and checkpoints.
        result: absolute path of the file that exists once the job is done.
        resume_arguments: additional arguments that resume an unfinished job from its checkpoint.
    """

    name: str
    arguments: tuple[str, ...]
    directory: Path
    result: Path
    resume_arguments: tuple[str, ...] = ()

    @property
    def done(self) -> bool:
        """Whether the result exists."""
        return self.result.is_file()

    def require_same(self) -> None:
        """Checks that the directory has no results of other settings.

        Raises:
            UserError: the stored arguments differ. The message has the differences.
        """
        path = self.directory / COMMAND
        if not path.is_file():
            return
        stored, current = json.loads(path.read_text(encoding="utf-8")), list(self.arguments)
        if stored != current:
            removed = [argument for argument in stored if argument not in current]
            added = [argument for argument in current if argument not in stored]
            raise UserError(
                f"{self.directory}: found a run with {' '.join(removed) or 'fewer settings'}, expected"
                f" {' '.join(added) or 'fewer settings'}; delete this folder or choose another one with --output"
            )

    def run(
        self,
        on_start: Callable[[subprocess.Popen[bytes]], Any] = lambda _: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> int:
        """Runs the command until it ends, and appends its output to ``log.txt``.

        A run can outlive a study that was killed. While such a process has the directory, this one waits for it.

        Args:
            on_start: called with the process when it has started.
            stopped: whether to wait no longer.

        Returns:
            the exit code; 0 if another process finished the job.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        while True:
            if self._in_use:
                logger.info("%s: another process is still running it; waiting for it", self.name)
            while self._in_use:
                if stopped():
                    return _TERMINATED
                time.sleep(_POLL_SECONDS)
            if self.done:
                return 0
            code = self._run_once(on_start)
            if code == 0 or not self._in_use:  # in use: the other process was still starting when this one looked
                return code

    @property
    def _in_use(self) -> bool:
        """Whether a process is running in the directory. One that ``fit`` starts holds this lock."""
        with locked(self.directory / "run") as free:
            return not free

    def _run_once(self, on_start: Callable[[subprocess.Popen[bytes]], Any]) -> int:
        write_json(self.directory / COMMAND, self.arguments)
        has_checkpoint = any(self.directory.glob("**/checkpoints/*.ckpt"))
        arguments = (*self.arguments, *(self.resume_arguments if has_checkpoint else ()))
        with (self.directory / LOG).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "momalit", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={PARALLEL_VARIABLE: "off", **os.environ},  # the cores belong to the study's jobs
                start_new_session=True,  # Ctrl-C must not reach the process directly; the engine terminates it once
            )
            on_start(process)
            return process.wait()

    @property
    def last_log_line(self) -> str:
        """The last line of ``log.txt``, or an empty string."""
        try:
            lines = (self.directory / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        except OSError:
            return ""
        return lines[-1].strip() if lines else ""


class Engine(Protocol):
    """Runs jobs."""

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, int]]:
        """Runs all jobs, and yields each with its exit code when it ends."""
        ...


class LocalEngine:
    """Runs jobs on this machine.

    Args:
        max_parallel: maximum number of jobs that run at the same time.
    """

    def __init__(self, max_parallel: int) -> None:
        self.max_parallel = max_parallel
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stop = threading.Event()

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, int]]:
        """Runs all jobs. An interruption terminates the processes, which save a checkpoint after the current epoch."""
        with ThreadPoolExecutor(self.max_parallel) as pool, _sigterm_as_interrupt():
            futures = {pool.submit(self._run, job): job for job in jobs}
            try:
                pending: set[Future[int]] = set(futures)
                while pending:
                    finished, pending = wait(pending, return_when=FIRST_COMPLETED)
                    for future in finished:
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
            return _TERMINATED
        process: list[subprocess.Popen[bytes]] = []

        def on_start(new: subprocess.Popen[bytes]) -> None:
            process.append(new)
            self._running.add(new)
            if self._stop.is_set():
                new.terminate()

        try:
            return job.run(on_start, self._stop.is_set)
        finally:
            self._running.difference_update(process)


class RayEngine:
    """Runs jobs on a Ray cluster. Its machines must share the file system with the study's folder.

    Args:
        address: address of the cluster for ``ray.init``; None starts a cluster on this machine.
    """

    def __init__(self, address: str | None = None) -> None:
        try:
            import ray  # type: ignore[import-not-found,unused-ignore]
        except ImportError as error:
            raise UserError("--engine ray: found no package ray, expected pip install 'momalit[ray]'") from error
        self._ray = ray
        if not ray.is_initialized():
            ray.init(address=address, log_to_driver=False, include_dashboard=False)

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, int]]:
        """Runs all jobs, each on one core."""
        remote = self._ray.remote(num_cpus=1, max_retries=0)(Job.run)
        pending = {remote.remote(job): job for job in jobs}
        try:
            while pending:
                (finished,), _ = self._ray.wait(list(pending), num_returns=1)
                yield pending.pop(finished), self._ray.get(finished)
        except BaseException:
            for reference in pending:
                self._ray.cancel(reference)
            raise


def run_jobs(
    jobs: Sequence[Job], engine: Engine, on_success: Callable[[Job], Any] = lambda _: None
) -> tuple[list[Job], list[Job]]:
    """Runs the jobs that are not done. If one fails, the others still run.

    Args:
        jobs: all jobs.
        engine: runs the jobs.
        on_success: called with each job that has just succeeded.

    Returns:
        the jobs that are done, and those that failed.

    Raises:
        UserError: a job's directory has results of other settings.
    """
    for job in jobs:
        job.require_same()
    missing = [job for job in jobs if not job.done]
    failed = []
    if len(missing) < len(jobs):
        logger.info("%d of %d jobs are already done", len(jobs) - len(missing), len(jobs))
    start = time.monotonic()
    for number, (job, code) in enumerate(engine.run(missing), 1):
        remaining = (time.monotonic() - start) / number * (len(missing) - number)
        if job.done:
            logger.info("%d/%d %s (%s left)", number, len(missing), job.name, format_duration(remaining))
            on_success(job)
        else:
            failed.append(job)
            logger.warning(
                "%d/%d %s failed (exit code %d): %s", number, len(missing), job.name, code, job.last_log_line
            )
    return [job for job in jobs if job.done], failed


def format_duration(seconds: float) -> str:
    """Formats a duration, e.g. ``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Makes SIGTERM raise KeyboardInterrupt, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous_handler = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous_handler)
