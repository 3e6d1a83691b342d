"""Gradients are averaged in shared memory, by nothing else, and whatever becomes of the others."""

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
from tests.processes import in_processes, make_trainer
from tests.tiny import SMALL, log
from tests.training.test_several_processes import trained

SHAPES = [(3, 1, 5), (), (1000,), (7,), (64, 33)]


def joined() -> int:
    """This process's number, once it has joined the others."""
    rank = int(os.environ["LOCAL_RANK"])
    if not is_initialized():
        dist.init_process_group("gloo", rank=rank, world_size=int(os.environ["WORLD_SIZE"]))
    return rank


def random_values(rank: int, dtype: torch.dtype) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(rank)
    return [torch.randn(shape, generator=random, dtype=dtype) for shape in SHAPES]


def averaged(chunk: int, dtype: torch.dtype) -> list[torch.Tensor]:
    rank = joined()
    mean = SharedMemoryMean(chunk)
    for _ in range(3):  # what was exchanged before does not linger
        values = random_values(rank, dtype)
        mean(values)
    return values


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("chunk", [256, 2**16], ids=["many chunks", "one chunk"])
def test_every_process_gets_the_mean_to_the_last_bit(n, dtype, chunk, momalit_home):
    answers = in_processes(averaged, chunk, dtype, n=n)
    expected = zip(*(random_values(rank, dtype) for rank in range(n)), strict=True)
    for found, parts in zip(answers[0], expected, strict=True):
        torch.testing.assert_close(found, torch.stack(parts).mean(0))
    for other in answers[1:]:
        assert all(torch.equal(a, b) for a, b in zip(answers[0], other, strict=True))
    assert not list(Path(momalit.training.gradient_averaging._FOLDER).glob("momalit-*"))


def left_alone() -> str:
    rank = joined()
    mean = SharedMemoryMean()
    if rank == 1:
        return "gone"
    try:
        mean([torch.ones(3)])
    except RuntimeError as error:
        return str(error)
    return "averaged with nobody"


def test_a_process_that_has_ended_is_not_waited_for(momalit_home):
    waiting, _ = in_processes(left_alone)
    assert waiting == "process 0 waits for the gradients of one that has ended"


def unlike() -> str:
    rank = joined()
    try:
        SharedMemoryMean(256)([torch.ones(3 + 100 * rank)])
    except RuntimeError as error:
        return str(error)
    return "averaged"


def test_gradients_of_other_sizes_are_an_error_in_all_processes(momalit_home):
    assert in_processes(unlike) == 2 * ["processes have gradients of 3, 103 numbers, not the same"]


def copied() -> tuple[bool, bool]:
    joined()
    mean = SharedMemoryMean()
    return copy.deepcopy({"mean": mean}) == {"mean": None}, pickle.loads(pickle.dumps(mean)) is None


def test_a_copy_averages_nothing(momalit_home):
    assert in_processes(copied) == 2 * [(True, True)]


def trained_without(folder: str, *arguments: Any) -> dict[str, Any]:
    momalit.training.gradient_averaging._FOLDER = folder
    return trained(*arguments)


def test_where_memory_cannot_be_shared_gloo_averages_the_same(tiny_world_model, tmp_path: Path):
    shared, _ = in_processes(trained, "moma_ppo", 2, tiny_world_model, {})
    one, other = in_processes(trained_without, str(tmp_path / "none"), "moma_ppo", 2, tiny_world_model, {})
    assert torch.equal(one["weights"], other["weights"])
    torch.testing.assert_close(one["weights"], shared["weights"], rtol=1e-4, atol=1e-5)


def exchanges(path: str, epochs: int, steps: int, accumulate: int) -> tuple[Counter[str], torch.Tensor]:
    """How often the processes have talked to each other through PyTorch in a training."""
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
    data = log()
    module = MOMAPPOModule(
        data.spec, world_model=path, **{**SMALL, "n_rollouts": 16, "n_minibatches": 4, "ppo_epochs": steps}
    )
    trainer = make_trainer(
        epochs, [Preemption()], limit_val_batches=0, accumulate_grad_batches=accumulate, enable_progress_bar=False
    )
    trainer.fit(module, datamodule=data)
    return counts, torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def test_gradient_steps_cost_no_exchange_beside_that_of_gradients(tiny_world_model):
    few, _ = in_processes(exchanges, tiny_world_model, 2, 1, 1)[0]
    many, _ = in_processes(exchanges, tiny_world_model, 2, 10, 1)[0]
    assert few == many
    assert few.total() > 0


def test_accumulated_gradients_are_averaged_too(tiny_world_model):
    (_, one), (_, other) = in_processes(exchanges, tiny_world_model, 2, 2, 4)
    assert torch.equal(one, other)
