"""Statistics, log-probabilities and uncertainties have at least 32 bits, independent of the trainer's precision."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision

from momalit.core.records import Rollout
from momalit.functional.uncertainty import ensemble_covariance_norm
from tests.processes import make_trainer, run_in_processes
from tests.tiny import flat_weights, make_data_and_module

pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed")


def train_and_record(kind: str, path: str | None, **trainer: Any) -> tuple[Any, list[dict[str, float]]]:
    """Returns a module after two iterations, and the values it recorded in each gradient step."""
    pl.seed_everything(0, verbose=False)
    data, module = make_data_and_module(kind, path)
    module.actor.head.weight.data.normal_(0, 3.0)  # confident policies, whose probabilities are sensitive to rounding
    records: list[dict[str, float]] = []
    record = module.record
    module.record = lambda values: records.append({k: float(v) for k, v in values.items()}) or record(values)
    make_trainer(2, **trainer).fit(module, datamodule=data)
    return module, records


@pytest.mark.parametrize("kind", ["moma_ppo", "mappo"])
@pytest.mark.parametrize(("precision", "wide"), [("bf16-mixed", torch.float32), ("64-true", torch.float64)])
def test_rollouts_and_targets_keep_their_precision(kind, precision, wide, tiny_world_model):
    module, records = train_and_record(kind, tiny_world_model, precision=precision)
    rollout: Rollout = module._rollout
    for name in ("log_prob", "advantage", "target", "state"):
        assert getattr(rollout, name).dtype == wide, name
    assert module.critic.scale(rollout.target).dtype == wide
    # Sampling and updating use the same computation: their log-probabilities agree before the first gradient step.
    first = next(record for record in records if "policy/kl" in record)
    assert first["policy/kl"] == pytest.approx(0, abs=1e-7)
    assert all(torch.isfinite(p).all() for p in module.parameters())


def test_the_world_model_predicts_variances_in_32_bits(tiny_world_model):
    _, module = make_data_and_module("world_model")
    x = torch.randn(3, 5, module.space.input.mean.shape[0])
    with torch.autocast("cpu", torch.bfloat16):
        prediction = module.network(x)
        losses = module.losses(x, torch.zeros_like(prediction.mean), torch.zeros(3, 5, dtype=torch.bool))
    assert {tensor.dtype for tensor in (*prediction, losses)} == {torch.float32}


def test_uncertainty_is_not_affected_by_autocast():
    mean = torch.randn(5, 16, 28)
    with torch.autocast("cpu", torch.bfloat16):
        found = ensemble_covariance_norm(mean)
    assert torch.equal(found, ensemble_covariance_norm(mean))


def test_gradients_are_unscaled_before_clipping(tiny_world_model):
    """With a gradient scaler, as on a GPU with 16-mixed."""
    half = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**10))
    module, records = train_and_record("moma_ppo", tiny_world_model, plugins=[half])
    _, plain = train_and_record("moma_ppo", tiny_world_model)
    name = "gradient/critic"
    scaled, expected = (next(record[name] for record in found if name in record) for found in (records, plain))
    assert scaled == pytest.approx(expected, rel=0.05)
    assert all(torch.isfinite(p).all() for p in module.parameters())


@pytest.mark.parametrize("kind", ["world_model", "warm_start", "moma_ppo", "mappo"])
def test_resuming_keeps_all_64_bits(kind, tiny_world_model, tmp_path):
    found = []
    for callbacks, checkpoint in (([_StopAfterOne()], None), ([], str(tmp_path / "one.ckpt")), ([], None)):
        pl.seed_everything(0, verbose=False)
        data, module = make_data_and_module(kind, tiny_world_model)
        trainer = make_trainer(3, callbacks, precision="64-true")
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
        if callbacks:
            trainer.save_checkpoint(tmp_path / "one.ckpt")
        found.append(flat_weights(module))
    assert torch.equal(found[1], found[2])


class _StopAfterOne(pl.Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = True


def precisions_of_a_world_model() -> set[torch.dtype]:
    pl.seed_everything(0, verbose=False)
    data, module = make_data_and_module("world_model")
    make_trainer(1, precision="64-true").fit(module, datamodule=data)
    found = module.world_model().network(torch.zeros(2, 1, module.space.input.mean.shape[0], dtype=torch.float64))
    return {tensor.dtype for tensor in (*module.parameters(), *found)}


def test_processes_that_divide_the_members_keep_all_64_bits(momalit_home):
    assert run_in_processes(precisions_of_a_world_model) == [{torch.float64}] * 2
