"""Gradients are averaged in shared memory only, and a process that ends does not cause a deadlock."""

from __future__ import annotations

import copy
import os
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import is_initialized

import momalit.training.gradient_averaging
from momalit.cli.preemption import Preemption
from momalit.policies.moma_ppo import MOMAPPOModule
from momalit.training.cpu import configure_cpu
from momalit.training.gradient_averaging import SharedMemoryMean
from tests.processes import make_trainer, run_in_processes
from tests.tiny import SMALL, offline_data
from tests.training.test_several_processes import trained

SHAPES = [(3, 1, 5), (), (1000,), (7,), (64, 33)]


def join_group() -> int:
    """Joins the process group and returns this process's rank."""
    rank = int(os.environ["LOCAL_RANK"])
    if not is_initialized():
        dist.init_process_group("gloo", rank=rank, world_size=int(os.environ["WORLD_SIZE"]))
    return rank


def random_values(rank: int, dtype: torch.dtype) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(rank)
    return [torch.randn(shape, generator=random, dtype=dtype) for shape in SHAPES]


def averaged(chunk: int, dtype: torch.dtype) -> list[torch.Tensor]:
    rank = join_group()
    mean = SharedMemoryMean(chunk)
    for _ in range(3):  # earlier values must not affect later means
        values = random_values(rank, dtype)
        mean(values)
    return values


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("chunk", [256, 2**16], ids=["many chunks", "one chunk"])
def test_all_processes_get_bitwise_the_same_mean(n, dtype, chunk, momalit_home):
    results = run_in_processes(averaged, chunk, dtype, n=n)
    expected = zip(*(random_values(rank, dtype) for rank in range(n)), strict=True)
    for found, parts in zip(results[0], expected, strict=True):
        torch.testing.assert_close(found, torch.stack(parts).mean(0))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    assert not list(Path(momalit.training.gradient_averaging._FOLDER).glob("momalit-*"))


def average_after_the_other_ended() -> str:
    rank = join_group()
    mean = SharedMemoryMean()
    if rank == 1:
        return "ended"
    try:
        mean([torch.ones(3)])
    except RuntimeError as error:
        return str(error)
    return "averaged without the other process"


def test_waiting_for_an_ended_process_raises_an_error(momalit_home):
    waiting, _ = run_in_processes(average_after_the_other_ended)
    assert waiting == "process 0 waits for the gradients of a process that has died"


def average_different_sizes() -> str:
    rank = join_group()
    try:
        SharedMemoryMean(256)([torch.ones(3 + 100 * rank)])
    except RuntimeError as error:
        return str(error)
    return "averaged"


def test_gradients_of_other_sizes_are_an_error_in_all_processes(momalit_home):
    message = "processes have gradients of 3, 103 numbers, expected equal sizes"
    assert run_in_processes(average_different_sizes) == 2 * [message]


def copies_are_none() -> tuple[bool, bool]:
    join_group()
    mean = SharedMemoryMean()
    return copy.deepcopy({"mean": mean}) == {"mean": None}, pickle.loads(pickle.dumps(mean)) is None


def test_a_copy_of_the_averager_is_none(momalit_home):
    assert run_in_processes(copies_are_none) == 2 * [(True, True)]


def trained_without(folder: str, *arguments: Any) -> dict[str, Any]:
    momalit.training.gradient_averaging._FOLDER = folder
    return trained(*arguments)


def test_gloo_gives_the_same_average_if_memory_cannot_be_shared(tiny_world_model, tmp_path: Path):
    shared, _ = run_in_processes(trained, "moma_ppo", 2, tiny_world_model, {})
    one, other = run_in_processes(trained_without, str(tmp_path / "none"), "moma_ppo", 2, tiny_world_model, {})
    assert torch.equal(one["weights"], other["weights"])
    torch.testing.assert_close(one["weights"], shared["weights"], rtol=1e-4, atol=1e-5)


def count_collectives(path: str, epochs: int, steps: int, accumulate: int) -> tuple[Counter[str], torch.Tensor]:
    """Trains and returns the number of calls of each PyTorch collective, and the parameters."""
    configure_cpu()
    counts: Counter[str] = Counter()

    def counted(name: str) -> Any:
        original = getattr(dist, name)

        def call(*arguments: Any, **settings: Any) -> Any:
            counts[name] += 1
            return original(*arguments, **settings)

        return call

    for name in ("all_reduce", "all_gather", "broadcast", "reduce", "all_gather_object", "barrier"):
        setattr(dist, name, counted(name))
    data = offline_data()
    module = MOMAPPOModule(
        data.spec, world_model=path, **{**SMALL, "n_rollouts": 16, "n_minibatches": 4, "ppo_epochs": steps}
    )
    trainer = make_trainer(
        epochs, [Preemption()], limit_val_batches=0, accumulate_grad_batches=accumulate, enable_progress_bar=False
    )
    trainer.fit(module, datamodule=data)
    return counts, torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def test_gradient_steps_call_no_collectives_of_pytorch(tiny_world_model):
    few, _ = run_in_processes(count_collectives, tiny_world_model, 2, 1, 1)[0]
    many, _ = run_in_processes(count_collectives, tiny_world_model, 2, 10, 1)[0]
    assert few == many
    assert few.total() > 0


def test_accumulated_gradients_are_averaged_too(tiny_world_model):
    (_, one), (_, other) = run_in_processes(count_collectives, tiny_world_model, 2, 2, 4)
    assert torch.equal(one, other)
