"""Two processes on two cores against one on one: whole epochs of the real trainer, gradients exchanged and all."""

from __future__ import annotations

import os
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest

from datamodules import OfflineDataModule
from momalit.cli.preemption import Preemption
from momalit.policies.moma_ppo import MOMAPPOModule
from momalit.training.cpu import configure_cpu
from momalit.world_model.module import WorldModelModule
from tests.processes import COUNT, N, in_processes, make_trainer

pytestmark = pytest.mark.benchmark

TRANSITIONS = 20_000
POLICIES = {"width": 256, "gru_size": 128, "horizon": 10, "pessimism": {"adaptive_horizon": False}}
WORK: dict[str, tuple[str, dict[str, Any], str]] = {  # kind, its settings, the one that says how much it does at once
    "world model 4x200, batch 256": ("world_model", {"batch_size": 256}, "batch_size"),
    "policies, 202 rows, 31 minibatches": ("policies", {"n_rollouts": 202, "n_minibatches": 31}, "n_rollouts"),
    "policies, 2,020 rows, 31 minibatches": ("policies", {"n_rollouts": 2020, "n_minibatches": 31}, "n_rollouts"),
}


class EpochTimes(pl.Callback):
    """When every epoch began."""

    def __init__(self) -> None:
        self.began: list[float] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        self.began.append(time.perf_counter())


def make_module(kind: str, spec: Any, path: str | None, settings: dict[str, Any]) -> pl.LightningModule:
    if kind == "world_model":
        return WorldModelModule(spec, hidden_sizes=(200,) * 4, termination="never", **settings)
    return MOMAPPOModule(spec, world_model=path, **POLICIES, **settings)


def epoch_seconds(kind: str, path: str | None, settings: dict[str, Any], epochs: int = 10) -> float:
    """Seconds of the fastest epoch after the first; returns and validation are left out."""
    configure_cpu()
    pl.seed_everything(0, verbose=False)
    data = OfflineDataModule("reacher/expert-mix", env={"observability": "independent"}, transitions=TRANSITIONS)
    times = EpochTimes()
    trainer = make_trainer(epochs, [times, Preemption()], limit_val_batches=0)
    trainer.fit(make_module(kind, data.spec, path, settings), datamodule=data)
    return min(later - earlier for earlier, later in pairwise(times.began[1:]))


def alone(*arguments: Any) -> float:
    """``epoch_seconds`` of a process that has nothing to do with the others that run."""
    for name in (COUNT, "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)
    return epoch_seconds(*arguments)


def saved_model(path: str) -> None:
    """Leaves the checkpoint of a world model that has seen the log once."""
    data = OfflineDataModule("reacher/expert-mix", env={"observability": "independent"}, transitions=TRANSITIONS)
    trainer = make_trainer(1)
    trainer.fit(make_module("world_model", data.spec, None, {}), datamodule=data)
    trainer.save_checkpoint(path)


@pytest.mark.benchmark(group=f"{N} processes, in units of one's transitions/s (ms: the runs with their start)")
@pytest.mark.parametrize("shared", [False, True], ids=["each as much", "shared out"])
@pytest.mark.parametrize("name", WORK)
def test_two_processes(benchmark, note, momalit_home, tmp_path: Path, name, shared):
    kind, settings, amount = WORK[name]
    path = str(tmp_path / "model.ckpt")
    saved_model(path)
    each = settings if shared else {**settings, amount: N * settings[amount]}

    def all_ways() -> tuple[float, float, float]:
        """One process, two that train together, and two that have nothing to do with each other."""
        one, *_ = in_processes(epoch_seconds, kind, path, settings, n=1, timeout=600)
        apart = 0.0 if shared else max(in_processes(alone, kind, path, settings, n=N, timeout=600))
        return one, max(in_processes(epoch_seconds, kind, path, each, n=N, timeout=600)), apart

    one, two, apart = benchmark.pedantic(all_ways, rounds=1)
    work = 1 if kind == "world_model" or shared else N  # an epoch of the world model is one pass over the log
    note(elsewhere=True)
    benchmark.extra_info["times_one_process"] = work * one / two
    if apart:
        benchmark.extra_info["times_one_process_apart"] = N * one / apart
