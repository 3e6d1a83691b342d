"""What must be exact is, whatever the networks compute in."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision

from momalit.core.records import Rollout
from momalit.functional.uncertainty import ensemble_covariance_norm
from tests.processes import make_trainer
from tests.tiny import make, weights

pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed")


def observed(kind: str, path: str | None, **trainer: Any) -> tuple[Any, list[dict[str, float]]]:
    """A module after two iterations, and what it noted in each gradient step."""
    pl.seed_everything(0, verbose=False)
    data, module = make(kind, path)
    module.actor.head.weight.data.normal_(0, 3.0)  # decided policies, whose probabilities rounding changes
    notes: list[dict[str, float]] = []
    note = module.note
    module.note = lambda values: notes.append({k: float(v) for k, v in values.items()}) or note(values)
    make_trainer(2, **trainer).fit(module, datamodule=data)
    return module, notes


@pytest.mark.parametrize("kind", ["moma_ppo", "mappo"])
@pytest.mark.parametrize(("precision", "wide"), [("bf16-mixed", torch.float32), ("64-true", torch.float64)])
def test_what_an_iteration_is_judged_by_is_wide(kind, precision, wide, tiny_world_model):
    module, notes = observed(kind, tiny_world_model, precision=precision)
    rollout: Rollout = module._rollout
    for name in ("log_prob", "advantage", "target", "state"):
        assert getattr(rollout, name).dtype == wide, name
    assert module.critic.scale.mean.dtype == wide
    # Acting and updating compute alike: before the first gradient step the two probabilities are the same.
    first = next(note for note in notes if "policy/kl" in note)
    assert first["policy/kl"] == pytest.approx(0, abs=1e-7)
    assert all(torch.isfinite(p).all() for p in module.parameters())


def test_the_world_model_predicts_variances_in_32_bits(tiny_world_model):
    _, module = make("world_model")
    x = torch.randn(3, 5, module.space.input.mean.shape[0])
    with torch.autocast("cpu", torch.bfloat16):
        prediction = module.network(x)
        losses = module.losses(x, torch.zeros_like(prediction.mean), torch.zeros(3, 5, dtype=torch.bool))
    assert {tensor.dtype for tensor in (*prediction, losses)} == {torch.float32}


def test_uncertainty_is_not_rounded():
    mean = torch.randn(5, 16, 28)
    with torch.autocast("cpu", torch.bfloat16):
        within = ensemble_covariance_norm(mean)
    assert torch.equal(within, ensemble_covariance_norm(mean))


def test_gradients_are_clipped_in_their_own_scale(tiny_world_model):
    """With a gradient scaler, as on a GPU with 16-mixed."""
    half = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**10))
    module, notes = observed("moma_ppo", tiny_world_model, plugins=[half])
    _, plain = observed("moma_ppo", tiny_world_model)
    scaled, usual = (next(n["gradient/critic"] for n in found if "gradient/critic" in n) for found in (notes, plain))
    assert scaled == pytest.approx(usual, rel=0.05)
    assert all(torch.isfinite(p).all() for p in module.parameters())


@pytest.mark.parametrize("kind", ["world_model", "warm_start", "moma_ppo", "mappo"])
def test_64_bits_are_resumed_with_all_of_them(kind, tiny_world_model, tmp_path):
    found = []
    for callbacks, checkpoint in (([_StopAfterOne()], None), ([], str(tmp_path / "one.ckpt")), ([], None)):
        pl.seed_everything(0, verbose=False)
        data, module = make(kind, tiny_world_model)
        trainer = make_trainer(3, callbacks, precision="64-true")
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
        if callbacks:
            trainer.save_checkpoint(tmp_path / "one.ckpt")
        found.append(weights(module))
    assert torch.equal(found[1], found[2])


class _StopAfterOne(pl.Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = True
