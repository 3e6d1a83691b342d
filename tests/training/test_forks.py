"""Copies of a process share its work, and results do not depend on their number."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback

from momalit.core.errors import UserError
from momalit.training.forked_ddp import ForkedDDP
from momalit.training.forks import can_fork, free_processes, side_by_side
from tests.tiny import fit, flat_weights

pytestmark = pytest.mark.skipif(not can_fork(), reason="this machine or test run cannot copy a process")


def square(number: int) -> tuple[int, torch.Tensor, int]:
    time.sleep(0.05)
    return os.getpid(), torch.full((3,), float(number)), number**2


@pytest.mark.parametrize("processes", [1, 2, 4, 20])
def test_results_come_in_the_order_of_the_tasks(processes):
    first, found = side_by_side(os.getpid, [partial(square, number) for number in range(6)], processes)
    assert first == os.getpid()
    assert [result for _, _, result in found] == [0, 1, 4, 9, 16, 25]
    assert [float(tensor[0]) for _, tensor, _ in found] == [0, 1, 2, 3, 4, 5]
    assert (len({pid for pid, _, _ in found}) > 1) == (processes > 1)


def test_this_process_goes_on_while_the_tasks_run():
    began = time.monotonic()
    side_by_side(lambda: time.sleep(0.5), [partial(time.sleep, 0.5)], 2)
    assert time.monotonic() - began < 0.95


def test_an_exception_in_a_copy_is_raised_here():
    def wrong() -> None:
        raise UserError("data.dataset: found nothing, expected something")

    with pytest.raises(UserError, match="found nothing"):
        side_by_side(lambda: None, [wrong], 2)


def test_what_a_killed_copy_had_taken_is_done_here():
    here = os.getpid()

    def fragile() -> str:
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return "done"

    assert side_by_side(lambda: time.sleep(0.2), [fragile, fragile], 2) == (None, ["done", "done"])


def test_a_failure_of_this_process_ends_the_copies():
    def fail() -> None:
        raise ValueError("first")

    began = time.monotonic()
    with pytest.raises(ValueError, match="first"):
        side_by_side(fail, [partial(time.sleep, 30)], 2)
    assert time.monotonic() - began < 10


def test_without_another_process_this_one_does_everything(monkeypatch, momalit_home):
    def refuse(*_):
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr("momalit.training.forks.start_fork", refuse)
    monkeypatch.setattr("momalit.training.forked_ddp.start_fork", refuse)
    assert side_by_side(lambda: "first", [lambda: "second"], 2) == ("first", ["second"])
    with pytest.raises(UserError, match=r"parallel: .*Resource temporarily unavailable.*--parallel off"):
        fit("world_model", 1, strategy=ForkedDDP(2), devices=2)


def test_copies_die_with_the_process(tmp_path):
    def work() -> None:
        (tmp_path / "pid").write_text(str(os.getpid()))
        time.sleep(60)

    def first() -> None:
        while not (tmp_path / "pid").is_file():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(target=side_by_side, args=(first, [work], 2))
    process.start()
    process.join(10)
    assert process.exitcode == -signal.SIGKILL
    time.sleep(0.2)
    state = Path("/proc", (tmp_path / "pid").read_text(), "stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


def test_the_number_of_processes_is_a_setting_or_a_variable(monkeypatch):
    monkeypatch.setattr("momalit.training.forks.cores", lambda: 8)
    monkeypatch.delenv("MOMALIT_PARALLEL", raising=False)
    assert (free_processes(), free_processes("auto"), free_processes("off")) == (8, 8, 1)
    monkeypatch.setenv("MOMALIT_PARALLEL", "off")
    assert (free_processes(), free_processes("auto")) == (1, 8)
    with pytest.raises(UserError, match="parallel: found 'no', expected auto or off"):
        free_processes("no")
    monkeypatch.setenv("MOMALIT_PARALLEL", "2")
    with pytest.raises(UserError, match="MOMALIT_PARALLEL: found '2', expected auto or off"):
        free_processes()


@pytest.mark.parametrize("processes", [2, 3])
def test_a_world_model_is_the_same_to_the_last_bit(processes, momalit_home):
    """The sizes of members are odd, so that vector registers are not full at the end of a tensor."""
    settings = {"n_members": 5, "n_elites": 4, "width": 24, "reward_share": 0.3}
    alone = fit("world_model", 3, **settings)
    before = dict(os.environ)
    several = fit("world_model", 3, strategy=ForkedDDP(processes), devices=processes, **settings)
    assert torch.equal(flat_weights(several), flat_weights(alone))
    metrics = [{name: float(value) for name, value in m.trainer.callback_metrics.items()} for m in (alone, several)]
    assert metrics[0] == metrics[1]
    assert not dist.is_initialized()
    assert dict(os.environ) == before


class EndOther(Callback):
    """Ends the second process in the second epoch."""

    def __init__(self, number: int | None) -> None:
        self.number = number

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1 and trainer.global_rank == 1:
            if self.number is None:
                raise UserError("data: found a mistake, expected none")
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(("number", "how"), [(signal.SIGKILL, "was killed by SIGKILL"), (None, "ended with exit code")])
def test_a_process_that_dies_stops_the_training_with_one_line(number, how, momalit_home):
    with pytest.raises(UserError, match=rf"a process of the training {how}.*--parallel off"):
        fit("world_model", 3, callbacks=[EndOther(number)], strategy=ForkedDDP(2), devices=2)
    assert not dist.is_initialized()
    assert "LOCAL_RANK" not in os.environ


def test_a_mistake_in_all_processes_is_reported_as_in_one(momalit_home):
    with pytest.raises(FloatingPointError, match="loss is nan"):
        fit("world_model", 3, lr=1e30, max_grad_norm=1e30, strategy=ForkedDDP(2), devices=2)
    assert not dist.is_initialized()
