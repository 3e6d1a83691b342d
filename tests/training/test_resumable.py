"""An interrupted and resumed run gives the same result as an uninterrupted one, in one and in two processes."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, Timer

from momalit.cli.checkpoint_settings import ReplaceLearningRates
from momalit.core.errors import UserError
from momalit.policies.mappo import MAPPOModule
from tests.processes import make_trainer, run_in_processes
from tests.tiny import SMALL, environment_data, fit, flat_weights, make_data_and_module

pytestmark = [
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.filterwarnings("ignore:Be aware that when using"),
]
KINDS = ["world_model", "warm_start", "moma_ppo", "mappo"]
SETTINGS: dict[str, dict[str, Any]] = {
    "world_model": {"patience": 2},
    "warm_start": {},
    "moma_ppo": {
        "reset_fraction": 0.3,
        "elite_per_rollout": True,
        "imitation_fraction": 0.5,
        "target_entropy": 0.4,
        "target_kl": 0.01,
    },
    "mappo": {"target_entropy": 0.4, "target_kl": 0.01},
}


class GlobalSamples(pl.Callback):
    """A user's callback that samples from the global generators."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.values += [float(torch.rand(())), float(np.random.rand()), random.random()]  # noqa: NPY002


def uninterrupted_and_resumed(kind: str, path: str | None, folder: Path) -> dict[str, Any]:
    """Returns weights, optimiser states and random numbers of an uninterrupted run and of one resumed after epoch 1."""
    found: dict[str, Any] = {}
    for name in ("uninterrupted", "resumed"):
        checkpoints = ModelCheckpoint(folder / name, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
        samples = GlobalSamples()
        pl.seed_everything(0, verbose=False)
        data, module = make_data_and_module(kind, path, **SETTINGS[kind])
        if name == "resumed":
            GlobalSamples().on_train_epoch_end(None, None)  # the checkpoint must restore the global generators
        trainer = make_trainer(5, [checkpoints, samples], enable_checkpointing=True)
        checkpoint = None if name == "uninterrupted" else str(folder / "uninterrupted" / "epoch=1.ckpt")
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
        states = trainer.optimizers[0].state_dict()["state"].values()
        moments = torch.cat([torch.as_tensor(value).flatten() for state in states for value in state.values()])
        found[name] = {"weights": flat_weights(module), "moments": moments, "samples": samples.values[-9:]}
    return found


def assert_same(found: dict[str, Any]) -> None:
    uninterrupted, resumed = found["uninterrupted"], found["resumed"]
    assert torch.equal(uninterrupted["weights"], resumed["weights"])
    assert torch.equal(uninterrupted["moments"], resumed["moments"])
    assert uninterrupted["samples"] == resumed["samples"]


@pytest.mark.parametrize("kind", KINDS)
def test_one_process(kind, tiny_world_model, tmp_path):
    assert_same(uninterrupted_and_resumed(kind, tiny_world_model, tmp_path))


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes(kind, tiny_world_model, tmp_path):
    for found in run_in_processes(uninterrupted_and_resumed, kind, tiny_world_model, tmp_path):
        assert_same(found)


def test_a_world_model_of_two_processes_continues_in_one(momalit_home, tmp_path):
    run_in_processes(uninterrupted_and_resumed, "world_model", None, tmp_path)
    data, module = make_data_and_module("world_model", **SETTINGS["world_model"])
    pl.seed_everything(0, verbose=False)
    trainer = make_trainer(5)
    trainer.fit(module, datamodule=data, ckpt_path=str(tmp_path / "uninterrupted" / "epoch=1.ckpt"))
    whole = torch.load(tmp_path / "uninterrupted" / "epoch=4.ckpt", weights_only=True)["state_dict"]
    for name, value in module.state_dict().items():
        torch.testing.assert_close(value, whole[name], rtol=1e-3, atol=1e-4)


def seeds_of_an_unseeded_run(path: str) -> list[int]:
    os.environ.pop("PL_GLOBAL_SEED", None)
    torch.seed()
    data, module = make_data_and_module("moma_ppo", path)
    before = torch.initial_seed()
    make_trainer(1).fit(module, datamodule=data)
    return [before, torch.initial_seed()]


def test_processes_without_a_seed_agree_on_one(tiny_world_model):
    (first, one), (second, other) = run_in_processes(seeds_of_an_unseeded_run, tiny_world_model)
    assert first != second
    assert first == one == other


def test_the_command_lines_seed_takes_precedence(tiny_world_model, tmp_path, caplog):
    trained = fit("moma_ppo", 1, tiny_world_model)
    trained.trainer.save_checkpoint(tmp_path / "one.ckpt")
    data, module = make_data_and_module("moma_ppo", tiny_world_model)
    pl.seed_everything(7, verbose=False)
    with caplog.at_level("INFO", "momalit"):
        make_trainer(2).fit(module, datamodule=data, ckpt_path=str(tmp_path / "one.ckpt"))
    assert "seed_everything: 7 from the command line (checkpoint: 0)" in caplog.text
    assert torch.initial_seed() == 7


def test_another_number_of_processes_warns_and_continues(tiny_world_model, tmp_path, caplog):
    run_in_processes(uninterrupted_and_resumed, "moma_ppo", tiny_world_model, tmp_path)
    data, module = make_data_and_module("moma_ppo", tiny_world_model, **SETTINGS["moma_ppo"])
    trainer = make_trainer(6)
    with caplog.at_level("WARNING", "momalit"):
        trainer.fit(module, datamodule=data, ckpt_path=str(tmp_path / "uninterrupted" / "epoch=4.ckpt"))
    assert "saved by 2 processes, now there are 1: unfinished rollouts are reset" in caplog.text
    assert trainer.current_epoch == 6


def test_an_environment_that_cannot_be_replayed_is_reset(momalit_home, tmp_path, caplog, monkeypatch):
    pl.seed_everything(0, verbose=False)
    module = MAPPOModule(environment_data().spec, **SMALL, n_rollouts=8)
    trainer = make_trainer(1)
    trainer.fit(module, datamodule=environment_data())
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    replay = "momalit.envs.resumable_env.ResumableEnv.replay"
    monkeypatch.setattr(replay, lambda self, history: self.reset(history["seeds"].tolist()) - 1)
    with caplog.at_level("WARNING", "momalit"):
        make_trainer(2).fit(module, datamodule=environment_data(), ckpt_path=str(tmp_path / "one.ckpt"))
    assert "icg depends on more than seed and actions: new episodes start" in caplog.text


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
def test_a_checkpoint_from_the_middle_of_an_iteration_is_rejected(tiny_world_model, tmp_path):
    middle = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=3, save_top_k=-1)
    fit("moma_ppo", 1, tiny_world_model, [middle], enable_checkpointing=True)
    data, module = make_data_and_module("moma_ppo", tiny_world_model)
    with pytest.raises(UserError, match="found a checkpoint from the middle of an iteration"):
        make_trainer(2).fit(module, datamodule=data, ckpt_path=str(tmp_path / "step=3.ckpt"))


def test_a_number_of_gradient_steps_is_no_limit(tiny_world_model):
    data, module = make_data_and_module("moma_ppo", tiny_world_model)
    with pytest.raises(UserError, match=r"trainer.max_steps: found 3, expected none"):
        make_trainer(2, max_steps=3).fit(module, datamodule=data)


class TimeIsUp(pl.Callback):
    """Lets a timer run out before the second gradient step of the second epoch, and counts gradient steps."""

    def __init__(self, timer: Timer) -> None:
        self.timer, self.steps = timer, 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.steps += 1
        if (trainer.current_epoch, batch_idx) == (1, 1):
            self.timer._duration = 0.0


def test_a_time_limit_ends_training_after_an_epoch(tiny_world_model):
    timer = Timer("00:01:00:00")
    steps = TimeIsUp(timer)
    data, module = make_data_and_module("moma_ppo", tiny_world_model)
    trainer = make_trainer(5, [timer, steps])
    trainer.fit(module, datamodule=data)
    assert trainer.current_epoch == 2
    assert steps.steps == 2 * trainer.num_training_batches


def resumed_with_another_rate(folder: Path) -> tuple[float, list[bool]]:
    """The learning rate of a resumed world model, and which of its members it has changed."""
    pl.seed_everything(0, verbose=False)
    data, module = make_data_and_module("world_model")
    trainer = make_trainer(1)
    trainer.fit(module, datamodule=data)
    trainer.save_checkpoint(folder / "one.ckpt")
    before = torch.load(folder / "one.ckpt", weights_only=True)["state_dict"]
    data, module = make_data_and_module("world_model", lr=1e-3)
    trainer = make_trainer(3, [ReplaceLearningRates()])
    trainer.fit(module, datamodule=data, ckpt_path=str(folder / "one.ckpt"))
    changed = [
        (value != before[f"network.{name}"]).flatten(1).any(1) for name, value in module.network.named_parameters()
    ]
    return trainer.optimizers[0].param_groups[0]["initial_lr"], torch.stack(changed).any(0).tolist()


def test_a_resumed_world_model_takes_another_learning_rate(momalit_home, tmp_path):
    assert resumed_with_another_rate(tmp_path) == (1e-3, [True] * 3)
    for found in run_in_processes(resumed_with_another_rate, tmp_path):
        assert found == (1e-3, [True] * 3)
