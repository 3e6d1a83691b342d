"""Worker processes that step parts of a vectorised environment in parallel."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import traceback
import weakref
from collections.abc import Callable, Sequence
from dataclasses import fields
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from momalit.core.errors import MAIN_GUARD_HINT, UserError
from momalit.core.records import Step

WORKERS_VARIABLE = "MOMALIT_WORKERS"


class WorkerEnv(Protocol):
    """Interface of the vectorised environment in a worker process."""

    def reset(self, seeds: Sequence[int]) -> Tensor:
        """Starts an episode in every row."""
        ...

    def step(self, action: Tensor) -> Step:
        """Applies a joint action to every row."""
        ...

    def replay(self, seeds: Sequence[int], episodes: Sequence[int], actions: Tensor, lengths: Sequence[int]) -> Tensor:
        """Restores the state of every row by repeating actions."""
        ...

    def close(self) -> None:
        """Closes all rows."""
        ...


def worker_count(workers: int | None, name: str = "workers") -> int:
    """Returns the number of processes: ``workers``, else the variable ``MOMALIT_WORKERS``, else 1.

    Args:
        workers: the setting, or None.
        name: name of the setting in the error message.

    Raises:
        UserError: the number is not an integer of at least 1.
    """
    if workers is None:
        name, text = WORKERS_VARIABLE, os.environ.get(WORKERS_VARIABLE) or "1"
    else:
        text = str(workers)
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{name}: found {text}, expected an integer of at least 1")
    return int(text)


class Workers:
    """Distributes rows among processes, with the interface of one vectorised environment.

    The processes end when this object is closed or garbage-collected, and with the program.

    Args:
        make: creates the environment of one process, given its number of rows; must be picklable.
        row_counts: number of rows of each process.
    """

    def __init__(self, make: Callable[[int], WorkerEnv], row_counts: Sequence[int]) -> None:
        # Every process needs PyTorch. With a fork server, it is imported only once.
        forkserver = "forkserver" in multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("forkserver" if forkserver else "spawn")
        if forkserver:
            context.set_forkserver_preload(["__main__", "momalit.envs.vector_env"])
        self._splits = np.cumsum(row_counts)[:-1]
        self._connections: list[Connection] = []
        self._processes: list[BaseProcess] = []
        self._stop = weakref.finalize(self, _stop_processes, self._connections, self._processes)
        for n_rows in row_counts:
            connection, worker_end = context.Pipe()
            arguments = (worker_end, make, n_rows)
            process = context.Process(target=_run_worker, args=arguments, daemon=True)  # type: ignore[attr-defined]
            process.start()
            worker_end.close()
            self._connections.append(connection)
            self._processes.append(process)

    def reset(self, seeds: Sequence[int]) -> Tensor:
        """Starts an episode in every row; see ``VectorTeamEnv.reset``."""
        parts = self._call("reset", [part.tolist() for part in np.split(np.asarray(seeds), self._splits)])
        return torch.from_numpy(np.concatenate(parts))

    def step(self, action: Tensor) -> Step:
        """Applies a joint action to every row; see ``VectorTeamEnv.step``."""
        parts = self._call("step", np.split(action.detach().cpu().numpy(), self._splits))
        return Step(*(torch.from_numpy(np.concatenate(part)) for part in zip(*parts, strict=True)))

    def replay(self, seeds: Sequence[int], episodes: Sequence[int], actions: Tensor, lengths: Sequence[int]) -> Tensor:
        """Restores the state of every row; see ``VectorTeamEnv.replay``."""
        per_row = [np.split(np.asarray(values), self._splits) for values in (seeds, episodes, lengths)]
        action_parts = np.split(actions.detach().cpu().numpy(), self._splits, 1)
        arguments = [
            (seed.tolist(), episode.tolist(), action, length.tolist())
            for seed, episode, length, action in zip(*per_row, action_parts, strict=True)
        ]
        return torch.from_numpy(np.concatenate(self._call("replay", arguments)))

    def close(self) -> None:
        """Stops the processes."""
        self._stop()

    def _call(self, method: str, arguments: Sequence[Any]) -> list[Any]:
        """Calls a method in every process and returns the results.

        Raises:
            RuntimeError: a process failed or ended.
        """
        try:
            for connection, argument in zip(self._connections, arguments, strict=True):
                connection.send((method, argument))
            replies = [connection.recv() for connection in self._connections]
        except (EOFError, ConnectionError) as error:
            self.close()
            raise RuntimeError(f"a worker process of the environment ended unexpectedly; {MAIN_GUARD_HINT}") from error
        for _, failure in replies:
            if failure:
                raise RuntimeError(f"a worker process of the environment failed:\n{failure}")
        return [result for result, _ in replies]


def _run_worker(connection: Connection, make: Callable[[int], WorkerEnv], n_rows: int) -> None:
    """Main loop of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the main process stops its workers
    torch.set_num_threads(1)
    env: WorkerEnv | None = None
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            method, argument = connection.recv()
            try:
                env = env or make(n_rows)
                connection.send((_execute(env, method, argument), None))
            except Exception:
                connection.send((None, traceback.format_exc()))
    if env is not None:
        env.close()


def _execute(env: WorkerEnv, method: str, argument: Any) -> Any:
    # Returns arrays, because each tensor would be sent through a shared-memory file of its own.
    if method == "reset":
        return env.reset(argument).numpy()
    if method == "replay":
        seeds, episodes, actions, lengths = argument
        return env.replay(seeds, episodes, torch.from_numpy(actions), lengths).numpy()
    step = env.step(torch.from_numpy(argument))
    return [getattr(step, field.name).numpy() for field in fields(step)]


def _stop_processes(connections: list[Connection], processes: list[BaseProcess]) -> None:
    for connection in connections:
        connection.close()
    for process in processes:
        process.join(timeout=5)
        if process.is_alive():
            process.terminate()
            process.join()
