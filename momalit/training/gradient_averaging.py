"""Gradients of several processes on one machine's CPUs, averaged in memory that they share.

PyTorch averages between CPUs by gloo, through the network stack and threads that must be woken: 1 to 3 ms where the
memory copy takes a few tenths, and a gradient step of a small team 5. GPUs keep NCCL.
"""

import logging
import mmap
import os
import platform
import select
import sys
import tempfile
import time
import weakref
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from momalit.core.distributed import gather_objects, is_distributed

logger = logging.getLogger(__name__)

_FOLDER = "/dev/shm"
_LINE = 64  # bytes that a processor's caches exchange at once; each counter has such a line of its own
_PATIENCE = 2000  # looks at a counter before a process sleeps between looks


class SharedMemoryMean:
    """Means over the processes of one machine. Every process must make one, and call it, together.

    Each process leaves its values, takes the mean of one share of them from all, and collects the others' shares. The
    values go through in chunks, so that the memory stays small. All processes get the same bits.

    The order of one processor's writes is what others see only on x86, hence the restriction to it.

    Args:
        chunk: bytes of one process that go through at once, a multiple of 64.

    Raises:
        OSError: the processes cannot share memory; raised in all of them.
    """

    def __init__(self, chunk: int = 2**22) -> None:
        self.rank, self.n = dist.get_rank(), dist.get_world_size()
        self.chunk = chunk
        self._turn = 0
        self._ended = select.poll()
        path, problem = "", None
        try:
            if self.rank == 0:
                path = self._create()
        except OSError as error:
            problem = str(error)
        states = gather_objects({"path": path, "pid": os.getpid(), "problem": problem})
        try:
            if problem is None:
                self._open(states[0]["path"], [state["pid"] for state in states])
        except OSError as error:
            problem = str(error)
        problems = [found for found in gather_objects(problem) if found is not None]
        if self.rank == 0 and path:
            os.unlink(path)  # what is open stays; nothing is left behind however the processes end
        if problems:
            raise OSError(problems[0])

    def _create(self) -> str:
        if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64"):
            raise OSError(f"found {sys.platform} on {platform.machine()}, expected linux on x86_64")
        handle, path = tempfile.mkstemp(prefix="momalit-", dir=_FOLDER)
        try:
            # Takes the memory now, where a full file system is an error and not a crash.
            os.posix_fallocate(handle, 0, self.n * _LINE + (self.n + 1) * self.chunk)
        except OSError:
            os.unlink(path)
            raise
        finally:
            os.close(handle)
        return path

    def _open(self, path: str, pids: list[int]) -> None:
        handle = os.open(path, os.O_RDWR)
        try:
            memory = mmap.mmap(handle, 0)
        finally:
            os.close(handle)
        header = memoryview(memory)[: self.n * _LINE].cast("q")
        step = _LINE // header.itemsize
        self._counters, self._amounts = header[::step], header[1::step]
        values = torch.frombuffer(memory, dtype=torch.uint8, offset=self.n * _LINE).view(self.n + 1, self.chunk)
        self._values, self._mean = values[: self.n], values[self.n]
        for pid in pids[: self.rank] + pids[self.rank + 1 :]:
            peer = os.pidfd_open(pid)
            weakref.finalize(self, os.close, peer)
            self._ended.register(peer, select.POLLIN)

    def __call__(self, values: Sequence[Tensor]) -> None:
        """Replaces contiguous tensors of one floating-point format by their means over processes.

        Raises:
            RuntimeError: processes have tensors of different sizes, or one of them has ended.
        """
        self._amounts[self.rank] = sum(value.numel() for value in values)
        limit = self.chunk // values[0].element_size()
        group: list[Tensor] = []
        size = 0
        for piece in (piece for value in values for piece in value.view(-1).split(limit)):
            if size + len(piece) > limit:
                self._replace(group, size)
                group, size = [], 0
            group.append(piece)
            size += len(piece)
        self._replace(group, size)

    def _replace(self, pieces: list[Tensor], size: int) -> None:
        everyones = self._values.view(pieces[0].dtype)[:, :size]
        mean = self._mean.view(pieces[0].dtype)[:size]
        torch.cat(pieces, out=everyones[self.rank])
        self._meet()
        if min(self._amounts) != max(self._amounts):
            amounts = ", ".join(map(str, self._amounts))
            raise RuntimeError(f"processes have gradients of {amounts} numbers, not the same")
        # Each process adds up its share of the values, in the order of ranks.
        mine = slice(size * self.rank // self.n, size * (self.rank + 1) // self.n)
        first, *others = everyones[:, mine]
        total = torch.add(first, others[0], out=mean[mine])
        for other in others[1:]:
            total += other
        total /= self.n
        self._meet()
        # What the others leave next does not touch the mean, which stays until all meet again.
        torch._foreach_copy_(pieces, mean.split([len(piece) for piece in pieces]))

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """A copy, of a module in training for instance, averages nothing: it has no others to do so with."""
        return type(None), ()

    def _meet(self) -> None:
        """Waits until all processes are here."""
        self._turn += 1
        self._counters[self.rank] = self._turn
        looks = 0
        while min(self._counters) < self._turn:
            looks += 1
            if looks < _PATIENCE:
                os.sched_yield()
                continue
            if self._ended.poll(0):
                raise RuntimeError(f"process {self.rank} waits for the gradients of one that has ended")
            time.sleep(1e-4)


def shared_memory_mean(model: DistributedDataParallel) -> SharedMemoryMean | None:
    """What averages the gradients of ``model`` from now on, in its place. Every process must call this.

    Returns:
        None where the model itself goes on to: on GPUs, on several machines, and where memory cannot be shared.
    """
    if not is_distributed() or next(model.parameters()).device.type != "cpu":
        return None
    try:
        mean = SharedMemoryMean()
    except OSError as error:
        logger.info("gradients are averaged by gloo: %s", error)
        return None
    model.require_backward_grad_sync = False
    return mean
