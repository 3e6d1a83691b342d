"""Rows of an environment in processes of their own, which step at the same time."""

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

from momalit.core.errors import UserError
from momalit.core.records import Step

VARIABLE = "MOMALIT_WORKERS"
GUARD = 'if it did not even start: a script that uses workers must begin its work under `if __name__ == "__main__":`'


class Rows(Protocol):
    """What a worker process holds."""

    def reset(self, seeds: Sequence[int]) -> Tensor:
        """Begins an episode in every row."""
        ...

    def step(self, action: Tensor) -> Step:
        """Applies a joint action to every row."""
        ...

    def replay(self, seeds: Sequence[int], episodes: Sequence[int], actions: Tensor, lengths: Sequence[int]) -> Tensor:
        """Takes every row to where certain episodes and actions led it."""
        ...

    def close(self) -> None:
        """Closes all rows."""
        ...


def worker_count(workers: int | None, name: str = "workers") -> int:
    """The number of processes: as asked for, else what the variable ``MOMALIT_WORKERS`` says, else 1.

    Args:
        workers: what was asked for, if anything was.
        name: what the setting is called in the message.

    Raises:
        UserError: it is no integer of at least 1.
    """
    if workers is None:
        name, text = VARIABLE, os.environ.get(VARIABLE) or "1"
    else:
        text = str(workers)
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{name}: found {text}, expected an integer of at least 1")
    return int(text)


class Workers:
    """Rows shared out among processes; it steps and answers like one environment of all of them.

    The processes end when this is closed or forgotten, and with the program.

    Args:
        make: makes the rows of one process, given their number; must be picklable.
        shares: how many rows each process holds.
    """

    def __init__(self, make: Callable[[int], Rows], shares: Sequence[int]) -> None:
        # Every process needs PyTorch: where there are fork servers, one imports it for all.
        server = "forkserver" in multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("forkserver" if server else "spawn")
        if server:
            context.set_forkserver_preload(["__main__", "momalit.envs.vector_env"])
        self._bounds = np.cumsum(shares)[:-1]
        self._ends: list[Connection] = []
        self._processes: list[BaseProcess] = []
        self._stop = weakref.finalize(self, _stop, self._ends, self._processes)
        for share in shares:
            mine, other = context.Pipe()
            process = context.Process(target=_serve, args=(other, make, share), daemon=True)  # type: ignore[attr-defined]
            process.start()
            other.close()
            self._ends.append(mine)
            self._processes.append(process)

    def reset(self, seeds: Sequence[int]) -> Tensor:
        """Begins an episode in every row; see ``VectorTeamEnv.reset``."""
        parts = self._ask("reset", [part.tolist() for part in np.split(np.asarray(seeds), self._bounds)])
        return torch.from_numpy(np.concatenate(parts))

    def step(self, action: Tensor) -> Step:
        """Applies a joint action to every row; see ``VectorTeamEnv.step``."""
        parts = self._ask("step", np.split(action.detach().cpu().numpy(), self._bounds))
        return Step(*(torch.from_numpy(np.concatenate(part)) for part in zip(*parts, strict=True)))

    def replay(self, seeds: Sequence[int], episodes: Sequence[int], actions: Tensor, lengths: Sequence[int]) -> Tensor:
        """Takes every row to where it was; see ``VectorTeamEnv.replay``."""
        numbers = [np.split(np.asarray(each), self._bounds) for each in (seeds, episodes, lengths)]
        taken = np.split(actions.detach().cpu().numpy(), self._bounds, 1)
        shares = [
            (seed.tolist(), episode.tolist(), action, length.tolist())
            for seed, episode, length, action in zip(*numbers, taken, strict=True)
        ]
        return torch.from_numpy(np.concatenate(self._ask("replay", shares)))

    def close(self) -> None:
        """Ends the processes."""
        self._stop()

    def _ask(self, method: str, arguments: Sequence[Any]) -> list[Any]:
        """All processes' answers.

        Raises:
            RuntimeError: a process failed or ended.
        """
        try:
            for end, argument in zip(self._ends, arguments, strict=True):
                end.send((method, argument))
            answers = [end.recv() for end in self._ends]
        except (EOFError, ConnectionError) as error:
            self.close()
            raise RuntimeError(f"a worker process of the environment ended unexpectedly; {GUARD}") from error
        for _, failure in answers:
            if failure:
                raise RuntimeError(f"a worker process of the environment failed:\n{failure}")
        return [answer for answer, _ in answers]


def _serve(end: Connection, make: Callable[[int], Rows], n_rows: int) -> None:
    """The life of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the program that is interrupted ends its workers itself
    torch.set_num_threads(1)
    rows: Rows | None = None
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            method, argument = end.recv()
            try:
                rows = rows or make(n_rows)
                end.send((_answer(rows, method, argument), None))
            except Exception:
                end.send((None, traceback.format_exc()))
    if rows is not None:
        rows.close()


def _answer(rows: Rows, method: str, argument: Any) -> Any:
    # As arrays: tensors would travel through shared memory, a file for each of them.
    if method == "reset":
        return rows.reset(argument).numpy()
    if method == "replay":
        seeds, episodes, actions, lengths = argument
        return rows.replay(seeds, episodes, torch.from_numpy(actions), lengths).numpy()
    step = rows.step(torch.from_numpy(argument))
    return [getattr(step, field.name).numpy() for field in fields(step)]


def _stop(ends: list[Connection], processes: list[BaseProcess]) -> None:
    for end in ends:
        end.close()
    for process in processes:
        process.join(timeout=5)
        if process.is_alive():
            process.terminate()
            process.join()
