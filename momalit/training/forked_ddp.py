"""ForkedDDP: DDP on a machine's CPU cores, by processes that exist during one call of the trainer only."""

from __future__ import annotations

import logging
import os
import signal
import traceback
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers.launcher import _Launcher

from momalit.core.errors import DivergedError, UserError
from momalit.training.forks import start_fork

_VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK")
_SECONDS_TO_END = 10.0


class ForkedDDP(DDPStrategy):
    """DDP whose first process is the one that called the trainer. The others are copies of it and end with the call.

    Nothing is imported or loaded twice, and what precedes and follows the call runs in a single process. Lightning's
    ``ddp`` starts the program once more for every process, and its ``ddp_fork`` trains in copies only, from which
    callbacks and exceptions do not come back.

    Args:
        processes: number of processes, with the first.
    """

    def __init__(self, processes: int) -> None:
        self._addresses = LightningEnvironment()
        super().__init__(
            parallel_devices=[torch.device("cpu")] * processes,
            cluster_environment=self._addresses,
            process_group_backend="gloo",
        )

    def _configure_launcher(self) -> None:
        self._launcher = ForkLauncher(self.num_processes, self._addresses)


class ForkLauncher(_Launcher):
    """Runs a function in this process, as rank 0, and at the same time in forks of it.

    Args:
        processes: number of processes, with this one.
        addresses: where they find each other.
    """

    def __init__(self, processes: int, addresses: LightningEnvironment) -> None:
        self.processes, self.addresses = processes, addresses
        self.procs: list[BaseProcess] = []

    @property
    def is_interactive_compatible(self) -> bool:
        return True

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Any = None, **kwargs: Any) -> Any:
        """Returns what ``function(*args, **kwargs)`` returns in this process.

        Raises:
            UserError: another process ended before its time.
        """
        before = {name: os.environ.get(name) for name in _VARIABLES}
        os.environ["MASTER_PORT"] = str(self.addresses.main_port)  # chosen now, and the same in all processes
        finished = False
        try:
            self._start(function, args, kwargs)
            result = function(*args, **kwargs)
            finished = True
        except RuntimeError as error:  # from the communication, if a process is gone
            if (ended := self._died()) is not None:
                raise UserError(
                    f"a process of the training {ended}, expected it to work until the end; --ckpt_path last continues"
                    " the run, and --parallel off trains in one process"
                ) from error
            raise
        finally:
            self._end(finished)
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value
        return result

    def _start(self, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        try:
            for rank in range(1, self.processes):
                self.procs.append(start_fork(self._follow, rank, function, args, kwargs))
        except OSError as error:
            raise UserError(
                f"parallel: a process could not be started ({error.strerror}); --parallel off trains in one"
            ) from error

    def _follow(self, rank: int, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        """The work of another process. What stops the first one, too, is reported there."""
        self.procs = []
        os.environ["LOCAL_RANK"] = str(rank)
        for name in ("momalit", "datamodules", "callbacks"):
            logging.getLogger(name).setLevel(logging.WARNING)
        try:
            function(*args, **kwargs)
        except (UserError, DivergedError, KeyboardInterrupt):
            os._exit(1)
        except Exception:
            traceback.print_exc()
            os._exit(1)

    def _died(self) -> str | None:
        """How a process ended that did not succeed, if any did within a second."""
        for process in self.procs:
            process.join(1)
            if process.exitcode is not None and process.exitcode < 0:
                return f"was killed by {signal.Signals(-process.exitcode).name}"
            if process.exitcode:
                return f"ended with exit code {process.exitcode}"
        return None

    def _end(self, finished: bool) -> None:
        """Leaves the process group and ends the processes, which have nothing left to do or wait for this one."""
        if not finished:
            self.kill(signal.SIGKILL)
        if dist.is_initialized():
            dist.destroy_process_group()
        for process in self.procs:
            process.join(_SECONDS_TO_END)
        self.kill(signal.SIGKILL)
        self.procs = []

    def kill(self, signum: int) -> None:
        """Sends a signal to the other processes."""
        for process in self.procs:
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, signum)
