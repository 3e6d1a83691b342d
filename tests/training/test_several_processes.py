"""Training in two processes on a CPU is equivalent to training in one."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import torch.distributed as dist

from callbacks import Evaluation
from momalit.core.distributed import process_weights
from momalit.core.errors import UserError
from momalit.envs.vector_env import VectorTeamEnv
from momalit.policies.moma_ppo import MOMAPPOModule
from momalit.policies.rollout import play_episodes
from momalit.training.batches import process_chunks
from tests.policies.test_ppo import AnalyticPPO
from tests.processes import make_trainer, run_in_processes
from tests.tiny import SMALL, fit, flat_weights, offline_data


def trained(kind: str, epochs: int, path: str | None, settings: dict[str, Any]) -> dict[str, Any]:
    module = fit(kind, epochs, path, **settings)
    rollout = getattr(module, "_rollout", None)
    states = None if rollout is None else rollout.state
    metrics = {name: float(value) for name, value in module.trainer.callback_metrics.items()}
    steps = int(getattr(module, "steps_taken", 0))
    return {"weights": flat_weights(module), "states": states, "steps": steps, "metrics": metrics}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("world_model", {}),
        ("world_model", {"optimizer": "muon"}),
        ("world_model", {"n_members": 1, "n_elites": 1}),
        ("warm_start", {}),
    ],
    ids=["members divided", "members divided, Muon", "batches of one member divided", "batches divided"],
)
def test_supervised_stages_give_the_weights_of_one_process(kind, settings, momalit_home):
    """The processes divide the members or each batch of a single process, so the weights must be the same."""
    one, other = run_in_processes(trained, kind, 3, None, settings)
    assert torch.equal(one["weights"], other["weights"])
    alone = trained(kind, 3, None, settings)
    torch.testing.assert_close(one["weights"], alone["weights"], rtol=1e-3, atol=1e-4)
    assert one["metrics"] == other["metrics"] == pytest.approx(alone["metrics"], rel=1e-3)


@pytest.mark.parametrize(
    ("kind", "settings", "rows"),
    [("moma_ppo", {}, (5, 4)), ("moma_ppo", {"imitation_fraction": 0.5}, (7, 6)), ("mappo", {}, (5, 4))],
    ids=["moma_ppo", "with logged steps", "mappo"],
)
def test_policies_are_the_same_in_all_processes_and_their_rollouts_differ(kind, settings, rows, tiny_world_model):
    settings = {"n_rollouts": 9, "n_minibatches": 3, "target_entropy": 0.4, "target_kl": 0.01, **settings}
    one, other = run_in_processes(trained, kind, 3, tiny_world_model, settings)
    assert torch.equal(one["weights"], other["weights"])
    assert one["steps"] == other["steps"] > 0
    assert (one["states"].shape[1], other["states"].shape[1]) == rows
    assert not torch.equal(one["states"][:, :4], other["states"])


def gradient(valid: torch.Tensor) -> torch.Tensor:
    """Returns gradients and recorded means of a step on this process's part of 12 rollouts, averaged as DDP does."""
    distributed = "LOCAL_RANK" in os.environ
    if distributed:
        dist.init_process_group("gloo", rank=int(os.environ["LOCAL_RANK"]), world_size=int(os.environ["WORLD_SIZE"]))
    pl.seed_everything(0, verbose=False)
    module = AnalyticPPO("split", n_rollouts=12, width=8, gru_size=4, entropy_coefficient=0.1, gae_lambda=0.9)
    whole = replace(module.make_rollout(12, torch.Generator().manual_seed(0)), valid=valid)
    mine = torch.arange(12)[dist.get_rank() * 5 : dist.get_rank() * 7 + 5] if distributed else torch.arange(12)
    part = module.with_advantages(whole.rows(mine))
    part = replace(part, weight=process_weights(part.valid.sum()))
    module.training_step(part, 0).backward()
    found = torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
    found = torch.cat([found, torch.stack(list(module.pop_means().values()))])
    if distributed:
        dist.all_reduce(found)
        found /= dist.get_world_size()
        dist.destroy_process_group()
    return found


@pytest.mark.parametrize("last", [12, 8, 5], ids=["all valid", "unequal", "none in one process"])
def test_the_averaged_gradient_is_the_gradient_over_all_valid_steps(last, momalit_home):
    valid = torch.ones(4, 12, dtype=torch.bool)
    valid[1:, 2:last:3] = False
    valid[:, last:] = False
    one, other = run_in_processes(gradient, valid)
    assert torch.equal(one, other)
    torch.testing.assert_close(one, gradient(valid), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("total", "size"), [(100, 16), (33, 16), (10, 16), (5, 2)])
def test_the_parts_of_a_batch_together_are_the_batch(total, size):
    order = torch.randperm(total, generator=torch.Generator().manual_seed(0))
    for parts, whole in zip(process_chunks(order, size, 2), process_chunks(order, size, 1), strict=True):
        assert parts.shape == (2, whole.numel() // 2)
        assert torch.equal(parts.flatten(), whole.flatten()[: parts.numel()])


def test_more_processes_than_samples_are_rejected():
    with pytest.raises(UserError, match=r"trainer\.devices: found 8 processes, expected at most 6"):
        list(process_chunks(torch.arange(6), 4, 8))


class EndsAtOnce(MOMAPPOModule):
    """In process 1 every rollout ends after its first step. In the second iteration it has no valid step."""

    def make_rollout(self, rows, generator):
        rollout = super().make_rollout(rows, generator)
        if self.global_rank == 0:
            return rollout
        valid = torch.zeros_like(rollout.valid)
        valid[0] = self.current_epoch != 1
        return replace(rollout, valid=valid, stopped=valid, reward=rollout.reward * valid)


class WorksOnRankZero(pl.Callback):
    """A user's callback that does slow work only in the first process."""

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.is_global_zero:
            play_episodes(VectorTeamEnv(pl_module.spec, 4), pl_module.actor, [0, 1, 2, 3])
            time.sleep(0.3)


def uneven(path: str) -> torch.Tensor:
    pl.seed_everything(0, verbose=False)
    data = offline_data()
    module = EndsAtOnce(data.spec, world_model=path, **SMALL, n_rollouts=16)
    make_trainer(3, [WorksOnRankZero(), Evaluation(episodes=3, imagined_episodes=8)]).fit(module, datamodule=data)
    return flat_weights(module)


def test_no_deadlock_if_rollouts_end_early_or_a_callback_runs_in_one_process(tiny_world_model):
    one, other = run_in_processes(uneven, tiny_world_model)
    assert torch.equal(one, other)
    assert one.isfinite().all()


def evaluated(path: str, episodes: int) -> dict[str, Any]:
    pl.seed_everything(0, verbose=False)
    data = offline_data()
    evaluation = Evaluation(episodes=episodes, imagined_episodes=8)
    module = MOMAPPOModule(data.spec, world_model=path, **SMALL, n_rollouts=16)
    module.prepare(path, None)
    (metrics,) = make_trainer(1, [evaluation]).validate(module, datamodule=data, verbose=False)
    return {"returns": evaluation.returns, **metrics}


@pytest.mark.parametrize("episodes", [7, 1])
def test_evaluation_is_partitioned_and_gives_the_metrics_of_one_process(episodes, tiny_world_model):
    alone = evaluated(tiny_world_model, episodes)
    assert alone["returns"].shape == (episodes,)
    for answer in run_in_processes(evaluated, tiny_world_model, episodes):
        assert torch.equal(answer.pop("returns"), alone["returns"])
        assert answer == {name: value for name, value in alone.items() if name != "returns"}


def final_return(path: str | None, kind: str, epochs: int, n_rollouts: int) -> float:
    module = fit(kind, epochs, path, n_rollouts=n_rollouts, lr=6e-3, horizon=10)
    return (
        float(Evaluation(deterministic=False).episode_returns(module, "test", 50).mean())
        if module.global_rank == 0
        else 0.0
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["moma_ppo", "mappo"])
def test_two_processes_learn_as_well_as_one(kind, tiny_world_model):
    alone = final_return(tiny_world_model, kind, 25, 64)
    together = run_in_processes(final_return, tiny_world_model, kind, 25, 64)[0]
    assert alone > 9
    assert together > 9


def test_fewer_rollouts_per_process_than_minibatches_are_rejected(tiny_world_model):
    with pytest.raises(
        RuntimeError, match=r"model\.n_minibatches: found 4, expected at most the 2 rollouts of each of 2"
    ):
        run_in_processes(trained, "moma_ppo", 1, tiny_world_model, {"n_rollouts": 5, "n_minibatches": 4})
