"""Two processes on two cores compared with one on one core: whole epochs with the real trainer and all-reduce."""

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
from tests.processes import COUNT_VARIABLE, N_PROCESSES, make_trainer, run_in_processes

pytestmark = pytest.mark.benchmark

TRANSITIONS = 20_000
POLICIES = {"width": 256, "gru_size": 128, "horizon": 10, "pessimism": {"adaptive_horizon": False}}
WORKLOADS: dict[str, tuple[str, dict[str, Any], str]] = {  # kind, settings, the setting of the batch size
    "world model 200-2, batch 256": ("world_model", {"batch_size": 256}, "batch_size"),
    "policies, 202 rollouts, 31 minibatches": ("policies", {"n_rollouts": 202, "n_minibatches": 31}, "n_rollouts"),
    "policies, 2,020 rollouts, 31 minibatches": ("policies", {"n_rollouts": 2020, "n_minibatches": 31}, "n_rollouts"),
}


class EpochTimes(pl.Callback):
    """Records the start time of every epoch."""

    def __init__(self) -> None:
        self.starts: list[float] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        self.starts.append(time.perf_counter())


def make_module(kind: str, spec: Any, path: str | None, settings: dict[str, Any]) -> pl.LightningModule:
    if kind == "world_model":
        return WorldModelModule(spec, width=200, n_blocks=2, termination="never", **settings)
    return MOMAPPOModule(spec, world_model=path, **POLICIES, **settings)


def epoch_seconds(kind: str, path: str | None, settings: dict[str, Any], epochs: int = 10) -> float:
    """Returns the seconds of the fastest epoch after the first, without validation."""
    configure_cpu()
    pl.seed_everything(0, verbose=False)
    data = OfflineDataModule("reacher/expert-mix", env={"observability": "independent"}, transitions=TRANSITIONS)
    times = EpochTimes()
    trainer = make_trainer(epochs, [times, Preemption()], limit_val_batches=0)
    trainer.fit(make_module(kind, data.spec, path, settings), datamodule=data)
    return min(later - earlier for earlier, later in pairwise(times.starts[1:]))


def independent_epoch_seconds(*arguments: Any) -> float:
    """Returns ``epoch_seconds`` of a process that trains independently of the others."""
    for name in (COUNT_VARIABLE, "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)
    return epoch_seconds(*arguments)


def save_world_model(path: str) -> None:
    """Saves the checkpoint of a world model that was trained for one epoch."""
    data = OfflineDataModule("reacher/expert-mix", env={"observability": "independent"}, transitions=TRANSITIONS)
    trainer = make_trainer(1)
    trainer.fit(make_module("world_model", data.spec, None, {}), datamodule=data)
    trainer.save_checkpoint(path)


@pytest.mark.benchmark(
    group=f"{N_PROCESSES} processes, relative to the transitions/s of one (ms: including process start)"
)
@pytest.mark.parametrize("split", [False, True], ids=["same batch per process", "same total batch"])
@pytest.mark.parametrize("name", WORKLOADS)
def test_two_processes(benchmark, record, momalit_home, tmp_path: Path, name, split):
    kind, settings, batch_setting = WORKLOADS[name]
    path = str(tmp_path / "model.ckpt")
    save_world_model(path)
    together = settings if split else {**settings, batch_setting: N_PROCESSES * settings[batch_setting]}

    def measure() -> tuple[float, float, float]:
        """Returns the seconds of one process, two that train together, and two independent ones (0 if ``split``)."""
        n = N_PROCESSES
        one, *_ = run_in_processes(epoch_seconds, kind, path, settings, n=1, timeout=600)
        apart = [] if split else run_in_processes(independent_epoch_seconds, kind, path, settings, n=n, timeout=600)
        two = max(run_in_processes(epoch_seconds, kind, path, together, n=n, timeout=600))
        return one, two, max(apart, default=0.0)

    one, two, independent = benchmark.pedantic(measure, rounds=1)
    # An epoch of the world model is one pass over the dataset, whatever the batch size.
    work = 1 if kind == "world_model" or split else N_PROCESSES
    record(subprocess=True)
    benchmark.extra_info["times_one_process"] = work * one / two
    if independent:
        benchmark.extra_info["times_one_process_independent"] = N_PROCESSES * one / independent
