"""Two processes, one for the actors and one for the critic, train as one does."""

from __future__ import annotations

import errno
import os
import signal
import time

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor

from momalit.policies.critic_beside import CriticBeside
from momalit.policies.ppo import PPOModule
from momalit.training.cpu import default_matmul
from momalit.training.forks import can_fork
from tests.policies.test_ppo import AnalyticPPO
from tests.processes import make_trainer

pytestmark = pytest.mark.skipif(not can_fork(), reason="this machine or test run cannot copy a process")

SMALL = {"n_rollouts": 20, "width": 16, "gru_size": 8, "lr": 3e-3, "n_minibatches": 3, "ppo_epochs": 2}


class Recorder(pl.Callback):
    """Keeps the metrics of every iteration, and whether the critic was trained beside the actors."""

    def __init__(self) -> None:
        self.metrics: list[dict[str, float]] = []
        self.divided: list[bool] = []

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, *_: object) -> None:
        self.divided.append(module.trained == ("actor",))

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: object) -> None:
        self.metrics.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    def on_fit_end(self, trainer: pl.Trainer, *_: object) -> None:
        self.on_train_epoch_start(trainer)


def train(task: str, cores: int, *callbacks: pl.Callback, iterations: int = 4, trainer=None, **settings):
    """Returns everything that training leaves: weights, the optimiser's state, and metrics; and the recorder."""
    pl.seed_everything(0, verbose=False)
    module, recorder = AnalyticPPO(task, **{**SMALL, **settings}), Recorder()
    module.use_cores(cores)
    fitter = make_trainer(iterations, [recorder, *callbacks], **(trainer or {}))
    fitter.fit(module)
    optimizer = [value for state in fitter.optimizers[0].state.values() for value in state.values()]
    return [*module.state_dict().values(), *optimizer], recorder


def require_same(task: str, *, divided: bool = True, **settings) -> None:
    (expected, alone), (found, beside) = (train(task, cores, **settings) for cores in (1, 2))
    assert len(found) == len(expected) > 20
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
    assert beside.metrics == alone.metrics
    assert len(alone.metrics) > 1
    assert (any(alone.divided), all(beside.divided)) == (False, divided)


@pytest.fixture(autouse=True)
def worthwhile(monkeypatch):
    monkeypatch.setattr("momalit.policies.critic_beside.WORTHWHILE_SECONDS", 0)
    with default_matmul():  # with oneDNN, float32 is not divided
        yield


def test_float32_by_onednn_is_not_divided(monkeypatch):
    monkeypatch.setattr("momalit.policies.critic_beside.float32_by_onednn", lambda: True)
    require_same("split", divided=False)
    require_same("split", trainer={"precision": "bf16-mixed"})


@pytest.mark.parametrize("task", ["split", "masked", "recall"])
def test_the_bits_are_those_of_one_process(task):
    require_same(task, **({"horizon": 1} if task == "masked" else {}))


@pytest.mark.parametrize(
    "settings",
    [
        {"mixer": "none"},
        {"mixer": "vdn"},
        {"gru_size": 0},
        {"share_parameters": True},
        {"critic_observes": "state", "critic_lr": 1e-3, "ema_decay": 0.9},
        {"target_kl": 0.01, "target_entropy": -0.5, "entropy_coefficient": 0.01},
        {"width": 128, "gru_size": 64, "n_rollouts": 160},
        {"trainer": {"precision": "64-true"}},
        {"trainer": {"precision": "bf16-mixed"}},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_so_they_are_with_other_settings(settings):
    require_same("split", **settings)


def test_a_killed_copy_is_replaced_by_this_process(monkeypatch):
    here, plain = os.getpid(), PPOModule.training_step

    def fragile(module: AnalyticPPO, batch: object, index: int) -> Tensor:
        if os.getpid() != here and module.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(module, batch, index)

    monkeypatch.setattr(PPOModule, "training_step", fragile)
    require_same("split")


def test_so_is_one_that_does_not_answer(monkeypatch):
    here, plain = os.getpid(), PPOModule.training_step

    def stuck(module: AnalyticPPO, batch: object, index: int) -> Tensor:
        if os.getpid() != here and module.current_epoch == 1:
            time.sleep(60)
        return plain(module, batch, index)

    monkeypatch.setattr(PPOModule, "training_step", stuck)
    monkeypatch.setattr("momalit.policies.critic_beside._PATIENCE", 0.5)
    require_same("split")


def test_a_gradient_step_of_ones_own_is_not_divided():
    class Own(AnalyticPPO):
        def training_step(self, batch: object, index: int) -> Tensor:
            return 2 * super().training_step(batch, index)

    module, recorder = Own("split", **SMALL), Recorder()
    module.use_cores(2)
    make_trainer(2, [recorder]).fit(module)
    assert not any(recorder.divided)


def test_an_exception_of_the_critic_is_raised_here(monkeypatch):
    def broken(*_: object) -> Tensor:
        raise ValueError("the critic")

    monkeypatch.setattr(AnalyticPPO, "_critic_loss", broken)
    with pytest.raises(ValueError, match="the critic"):
        train("split", 2)


def test_without_another_process_nothing_is_divided(monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr("momalit.training.forks.start_fork", refuse)
    require_same("split", divided=False)


def test_training_starts_anew_after_an_exception():
    class Fails(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, *_: object) -> None:
            raise ValueError("a callback")

    pl.seed_everything(0, verbose=False)
    module = AnalyticPPO("split", **SMALL)
    module.use_cores(2)
    with pytest.raises(ValueError, match="a callback"):
        make_trainer(2, [Fails()]).fit(module)
    assert module.trained == ("actor",)
    make_trainer(2).fit(module)
    assert module.trained == ("actor", "critic")


class LooksAtGradients(pl.Callback):
    """Counts the critic's gradients that it sees."""

    seen = 0

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: pl.LightningModule, *_: object) -> None:
        self.seen += all(parameter.grad is not None for parameter in module.critic.parameters())


def test_who_looks_at_gradients_sees_all_of_them():
    looks = LooksAtGradients()
    _, recorder = train("split", 2, looks, iterations=2)
    assert not any(recorder.divided)
    assert looks.seen == len(recorder.divided) == 12


@pytest.mark.parametrize("settings", [{"fast_dev_run": 5}, {"accumulate_grad_batches": 2}])
def test_iterations_that_lightning_cuts_or_joins_are_not_divided(settings):
    require_same("split", divided=False, trainer=settings)


def test_only_some_batches_of_an_iteration():
    require_same("split", trainer={"limit_train_batches": 4})


def test_an_iteration_of_little_work_is_not_divided(monkeypatch):
    monkeypatch.setattr("momalit.policies.critic_beside.WORTHWHILE_SECONDS", 60)
    require_same("split", divided=False)


def test_the_first_iteration_tells_whether_it_is_worthwhile(monkeypatch):
    monkeypatch.setattr("momalit.policies.critic_beside.WORTHWHILE_SECONDS", 1e-6)
    _, recorder = train("split", 2)
    assert recorder.divided == [False] * 6 + [True] * 18
    assert {"loss/value", "loss/policy", "gradient/actor", "gradient/critic"} <= set(recorder.metrics[-1])


def test_no_process_is_left(monkeypatch):
    started, plain = [], CriticBeside.begin

    def begin(self: CriticBeside, module: AnalyticPPO) -> None:
        plain(self, module)
        started.append(self._fork._process)

    monkeypatch.setattr(CriticBeside, "begin", begin)
    train("split", 2)
    assert len(started) == 4
    assert not any(process.is_alive() for process in started)
