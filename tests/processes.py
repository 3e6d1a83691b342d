"""Runs a function in several processes that train together, as ``torchrun`` would start them."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import lightning.pytorch as pl
import torch

N = 2
COUNT = "MOMALIT_TEST_PROCESSES"  # Lightning removes WORLD_SIZE when a trainer has finished


def in_processes(function: Callable[..., Any], *arguments: Any, n: int = N, timeout: float = 120) -> list[Any]:
    """What ``function(*arguments)`` returns in each of ``n`` processes, in the order of their ranks.

    Args:
        function: of a test module; it and what it takes and returns must be picklable. A trainer that it makes by
            ``make_trainer`` joins the others.
        arguments: its arguments.
        n: number of processes.
        timeout: seconds, after which a deadlock is assumed.

    Raises:
        RuntimeError: a process failed, with its traceback, or did not end in time.
    """
    server = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if server else "spawn")
    if server:
        context.set_forkserver_preload(["lightning.pytorch", "momalit.envs.vector_env"])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(n), "NODE_RANK": "0"}
    shared |= {"MOMALIT_HOME": os.environ["MOMALIT_HOME"], COUNT: str(n)}
    ends, processes = [], []
    for rank in range(n):
        mine, other = context.Pipe(duplex=False)
        variables = {**shared, "LOCAL_RANK": str(rank)}
        process = context.Process(target=_serve, args=(other, variables, function, arguments), daemon=True)
        process.start()
        other.close()
        ends.append(mine)
        processes.append(process)
    try:
        return _answers(ends, timeout)
    finally:
        for process in processes:
            process.join(2)
            if process.is_alive():
                process.kill()
                process.join()


def _answers(ends: Sequence[Connection], timeout: float) -> list[Any]:
    deadline = time.monotonic() + timeout
    found: dict[int, Any] = {}
    failures: list[str] = []
    while len(found) < len(ends) and not failures:
        ready = multiprocessing.connection.wait(
            [end for rank, end in enumerate(ends) if rank not in found], max(deadline - time.monotonic(), 0)
        )
        if not ready:
            missing = [rank for rank in range(len(ends)) if rank not in found]
            raise RuntimeError(f"processes {missing} had not ended after {timeout} seconds")
        for end in ready:
            rank = ends.index(end)
            try:
                found[rank], failure = pickle.loads(end.recv_bytes())
            except EOFError:
                failure = "it ended without an answer"
            if failure:
                failures.append(f"process {rank}: {failure}")
    if failures:
        raise RuntimeError("\n".join(failures))
    return [found[rank] for rank in range(len(ends))]


def _serve(
    end: Connection, variables: dict[str, str], function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    os.environ.update(variables)
    torch.set_num_threads(1)
    try:
        answer = (function(*arguments), None)
    except BaseException:
        answer = (None, traceback.format_exc())
    # By value: what torch would share ends with this process.
    end.send_bytes(pickle.dumps(answer))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_trainer(epochs: int, callbacks: Sequence[pl.Callback] = (), **settings: Any) -> pl.Trainer:
    """A quiet trainer on the CPU, of as many processes as there are."""
    world_size = int(os.environ.get(COUNT, "1"))
    return pl.Trainer(
        **{
            "max_epochs": epochs, "accelerator": "cpu", "logger": False, "enable_checkpointing": False,
            "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0,
            "devices": world_size, "strategy": "ddp" if world_size > 1 else "auto", "callbacks": list(callbacks),
            **settings,
        }
    )  # fmt: skip
