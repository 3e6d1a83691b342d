"""Runs a function in several processes that train together, with the environment variables of ``torchrun``."""

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

N_PROCESSES = 2
COUNT_VARIABLE = "MOMALIT_TEST_PROCESSES"  # Lightning removes WORLD_SIZE after a trainer has finished


def run_in_processes(
    function: Callable[..., Any], *arguments: Any, n: int = N_PROCESSES, timeout: float = 120
) -> list[Any]:
    """Calls ``function(*arguments)`` in each of ``n`` processes and returns the results in rank order.

    Args:
        function: a function of a test module. It, its arguments and its result must be picklable. Trainers from
            ``make_trainer`` train with those of the other processes.
        arguments: its arguments.
        n: number of processes.
        timeout: seconds after which a deadlock is assumed.

    Raises:
        RuntimeError: a process failed (the message has its traceback) or did not finish in time.
    """
    forkserver = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if forkserver else "spawn")
    if forkserver:
        context.set_forkserver_preload(["lightning.pytorch", "momalit.envs.vector_env"])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(n), "NODE_RANK": "0"}
    shared |= {"MOMALIT_HOME": os.environ["MOMALIT_HOME"], COUNT_VARIABLE: str(n)}
    connections, processes = [], []
    for rank in range(n):
        receiver, sender = context.Pipe(duplex=False)
        variables = {**shared, "LOCAL_RANK": str(rank)}
        process = context.Process(target=_run, args=(sender, variables, function, arguments), daemon=True)
        process.start()
        sender.close()
        connections.append(receiver)
        processes.append(process)
    try:
        return _results(connections, timeout)
    finally:
        for process in processes:
            process.join(2)
            if process.is_alive():
                process.kill()
                process.join()


def _results(connections: Sequence[Connection], timeout: float) -> list[Any]:
    deadline = time.monotonic() + timeout
    results: dict[int, Any] = {}
    failures: list[str] = []
    while len(results) < len(connections) and not failures:
        ready = multiprocessing.connection.wait(
            [connection for rank, connection in enumerate(connections) if rank not in results],
            max(deadline - time.monotonic(), 0),
        )
        if not ready:
            missing = [rank for rank in range(len(connections)) if rank not in results]
            raise RuntimeError(f"processes {missing} had not finished after {timeout} seconds")
        for connection in ready:
            rank = connections.index(connection)
            try:
                results[rank], failure = pickle.loads(connection.recv_bytes())
            except EOFError:
                failure = "ended without a result"
            if failure:
                failures.append(f"process {rank}: {failure}")
    if failures:
        raise RuntimeError("\n".join(failures))
    return [results[rank] for rank in range(len(connections))]


def _run(
    sender: Connection, variables: dict[str, str], function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    os.environ.update(variables)
    torch.set_num_threads(1)
    try:
        result = (function(*arguments), None)
    except BaseException:
        result = (None, traceback.format_exc())
    # Tensors are sent by value, because torch's shared memory ends with this process.
    sender.send_bytes(pickle.dumps(result))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_trainer(epochs: int, callbacks: Sequence[pl.Callback] = (), **settings: Any) -> pl.Trainer:
    """Returns a CPU trainer without output that trains with all processes of ``run_in_processes``."""
    world_size = int(os.environ.get(COUNT_VARIABLE, "1"))
    return pl.Trainer(
        **{
            "max_epochs": epochs, "accelerator": "cpu", "logger": False, "enable_checkpointing": False,
            "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0,
            "devices": world_size, "strategy": "ddp" if world_size > 1 else "auto", "callbacks": list(callbacks),
            **settings,
        }
    )  # fmt: skip
