"""This library beside what others do for the same work: alternately, in one run, so that ratios hold on any processor.

``make bench PEERS=1``. See ``tests.benchmarks.peers`` for what the peers are.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from statistics import median

import pytest
import torch

from momalit.training.cpu import has_bfloat16
from tests.benchmarks.peers import EinsumEnsemble, SequenceTeam, WindowedTeam
from tests.benchmarks.workloads import (
    HORIZON,
    N_MINIBATCHES,
    N_ROLLOUTS,
    NETWORKS,
    PRECISIONS,
    SMALL,
    TASKS,
    PolicyIteration,
    make_spec,
    world_model_step,
)

pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.skipif("BENCHMARK_PEERS" not in os.environ, reason="make bench PEERS=1"),
]
ROUNDS = 7
FAST = [name for name in PRECISIONS if name == "fp32" or has_bfloat16(torch.device("cpu"))]  # emulation takes an hour
TEAMS = {"windowed": WindowedTeam, "sequences": SequenceTeam}


@pytest.fixture
def beside(benchmark, record):
    """Returns a function that times this library's work and a peer's alternately."""

    def run(ours: Callable[[], object], peer: Callable[[], object], repeat: int = 1) -> None:
        seconds = []

        def time_peer() -> None:
            start = time.perf_counter()
            for _ in range(repeat):
                peer()
            seconds.append(time.perf_counter() - start)

        def work() -> None:
            for _ in range(repeat):
                ours()

        benchmark.pedantic(work, setup=time_peer, rounds=ROUNDS, warmup_rounds=1)
        own, other = benchmark.stats.stats.median, median(seconds[-ROUNDS:])
        record(subprocess=True)  # the memory would be that of both
        medians = {"median_ms": 1000 * own / repeat, "peer_ms": 1000 * other / repeat}
        benchmark.extra_info |= {**medians, "times_peer": other / own}

    return run


@pytest.mark.benchmark(group="world model, Ant: one step of 7 members, beside one with einsum and NumPy batches")
@pytest.mark.parametrize("precision_name", FAST)
@pytest.mark.parametrize("network", NETWORKS)
def test_world_model(beside, network, precision_name):
    spec = make_spec("ant", **TASKS["ant"])
    peer = EinsumEnsemble(spec, 7, NETWORKS[network][0], precision_name)
    beside(world_model_step(spec, NETWORKS[network], precision_name), peer.step, repeat=5)


@pytest.mark.benchmark(group="policies: update on 2,020 transitions, 155 gradient steps, beside windows and sequences")
@pytest.mark.parametrize("precision_name", FAST)
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("peer", TEAMS)
def test_update(beside, peer, task, precision_name):
    spec = make_spec(task, **TASKS[task])
    iteration = PolicyIteration(spec, SMALL, N_ROLLOUTS, HORIZON, N_MINIBATCHES, precision_name)
    rollout, team = iteration.imagine(), TEAMS[peer](spec, precision_name)
    data = team.data(N_ROLLOUTS, HORIZON)
    beside(lambda: iteration.update(rollout), lambda: team.update(data, N_MINIBATCHES))


@pytest.mark.benchmark(group="one policy iteration with the small model, Reacher, beside windows and einsum")
@pytest.mark.parametrize("precision_name", FAST)
def test_iteration(beside, precision_name):
    spec = make_spec("reacher", **TASKS["reacher"])
    iteration = PolicyIteration(spec, SMALL, N_ROLLOUTS, HORIZON, N_MINIBATCHES, precision_name)
    ensemble, team = EinsumEnsemble(spec, 5, SMALL[0], precision_name), WindowedTeam(spec, precision_name)
    data = team.data(N_ROLLOUTS, HORIZON)

    def peer() -> None:
        team.imagine(ensemble, N_ROLLOUTS, HORIZON)
        team.update(data, N_MINIBATCHES)

    beside(iteration.iterate, peer)
