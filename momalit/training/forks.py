"""Copies of this process that share a piece of work with it on a machine's other cores, and then end."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import pickle
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar, cast

import torch

from momalit.core.checks import require_choice
from momalit.training.cpu import cores

PARALLEL_VARIABLE = "MOMALIT_PARALLEL"
PARALLEL = ("auto", "off")
_DIE_WITH_PARENT = 1  # Linux's PR_SET_PDEATHSIG

First = TypeVar("First")
Result = TypeVar("Result")


def can_fork() -> bool:
    """Whether this process can be continued in copies: on Linux, with one thread and no GPU."""
    forks = sys.platform == "linux" and "fork" in get_all_start_methods()
    return forks and torch.get_num_threads() == 1 and not torch.cuda.is_available()


def free_processes(parallel: str | None = None) -> int:
    """Returns the number of processes that a run may use on this machine: one per core, or 1.

    Args:
        parallel: ``auto``, or ``off`` for 1; None for the value of ``MOMALIT_PARALLEL``, else ``auto``.

    Raises:
        UserError: the setting is another one.
    """
    name, setting = ("parallel", parallel) if parallel else (PARALLEL_VARIABLE, os.environ.get(PARALLEL_VARIABLE))
    require_choice(name, setting or "auto", PARALLEL)
    return cores() if setting != "off" and can_fork() else 1


def start_fork(target: Callable[..., None], *args: Any) -> BaseProcess:
    """Starts a copy of this process that calls ``target(*args)`` and ends."""
    context: Any = get_context("fork")
    process: BaseProcess = context.Process(target=_in_fork, args=(os.getpid(), target, args), daemon=True)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    with warnings.catch_warnings():
        # Python warns of other threads, whose locks a copy inherits. Those here belong to loggers and progress bars,
        # which a copy does not use.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    return process


def _in_fork(parent: int, target: Callable[..., None], args: tuple[Any, ...]) -> None:
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:  # it died before that call
        os._exit(1)
    if sys.__stdout__ is not None and sys.__stderr__ is not None:
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__  # a progress bar may have replaced them
    target(*args)
    os._exit(0)


class Fork(Generic[Result]):
    """A call of ``function()`` in a copy of this process, while this one goes on.

    Args:
        function: its result can be pickled. It must not change anything that is needed later: its process ends.

    Raises:
        OSError: there is no memory for another process, or no process left.
    """

    def __init__(self, function: Callable[[], Result]) -> None:
        context: Any = get_context("fork")
        self._receiver, sender = context.Pipe(duplex=False)
        self._process = start_fork(_call, function, sender)
        sender.close()

    def result(self, seconds: float | None = None) -> Result | None:
        """Waits for the result, at most ``seconds``; None if none comes in time or the function or process failed."""
        with contextlib.suppress(EOFError, ConnectionError):
            if seconds is not None and not self._receiver.poll(seconds):
                return None
            return cast(Result, pickle.loads(self._receiver.recv_bytes()))
        return None

    def end(self) -> None:
        """Ends the process."""
        self._receiver.close()
        self._process.kill()
        self._process.join()


def _call(function: Callable[[], Any], sender: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the first process ends this one
    logging.disable()
    with contextlib.suppress(Exception):
        sender.send_bytes(pickle.dumps(function()))  # tensors by value


def side_by_side(
    first: Callable[[], First], tasks: Sequence[Callable[[], Result]], processes: int
) -> tuple[First, list[Result]]:
    """Calls ``first`` in this process while copies of it work on ``tasks``, with which it then helps.

    A task must not change anything that is needed later: its process ends. A task that fails in a copy, or whose copy
    is killed, is repeated in this process, so that its exceptions are raised here.

    Args:
        first: called in this process.
        tasks: functions whose results can be pickled.
        processes: number of processes, with this one. With 1, or if this process cannot be copied, ``first`` and the
            tasks are called one after the other.

    Returns:
        the result of ``first``, and those of the tasks in their order.
    """
    n_forks = min(processes - 1, len(tasks)) if can_fork() else 0
    if n_forks < 1:
        return first(), [task() for task in tasks]
    context: Any = get_context("fork")
    taken = context.Value("i", 0)
    forks: list[Fork[dict[int, Result]]] = []
    results: dict[int, Result] = {}
    try:
        with contextlib.suppress(OSError):  # this process has more to do then
            while len(forks) < n_forks:
                forks.append(Fork(partial(_take_all, tasks, taken)))
        done = first()
        while (index := _take(taken, tasks)) is not None:
            results[index] = tasks[index]()
        for fork in forks:
            results |= fork.result() or {}
        return done, [results[i] if i in results else task() for i, task in enumerate(tasks)]
    finally:
        for fork in forks:
            fork.end()


def _take(taken: Any, tasks: Sequence[Any]) -> int | None:
    """Takes the next task that no process has; None if there is none left."""
    with taken.get_lock():
        index = int(taken.value)
        taken.value += 1
    return index if index < len(tasks) else None


def _take_all(tasks: Sequence[Callable[[], Result]], taken: Any) -> dict[int, Result]:
    """Works on tasks until none is left; returns the results of those that did not fail."""
    results = {}
    while (index := _take(taken, tasks)) is not None:
        with contextlib.suppress(Exception):
            results[index] = tasks[index]()
    return results
