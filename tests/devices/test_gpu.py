"""Training of all modules on a GPU, skipped without one."""

from __future__ import annotations

import pytest
import torch

from callbacks import Evaluation
from tests.tiny import flat_weights, make_data_and_module

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]


@pytest.mark.parametrize("keep_on_device", [True, False])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("kind", ["world_model", "warm_start", "moma_ppo", "mappo"])
def test_every_kind_trains_in_every_precision(kind, precision, keep_on_device, tiny_world_model):
    import lightning.pytorch as pl

    pl.seed_everything(0, verbose=False)
    data, module = make_data_and_module(kind, tiny_world_model)
    data.keep_on_device = keep_on_device
    trainer = pl.Trainer(
        max_epochs=2, accelerator="gpu", devices=1, precision=precision, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        callbacks=[Evaluation(episodes=2)],
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    assert flat_weights(module).isfinite().all()
    if kind != "mappo":
        assert data.train.reward.is_cuda == keep_on_device
        trainer.predict(module, datamodule=data)
    trainer.test(module, datamodule=data, verbose=False)
