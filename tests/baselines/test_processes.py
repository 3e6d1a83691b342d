"""Training in two processes."""

import subprocess
import sys

import pytest

SCRIPT = """
import lightning.pytorch as pl
import torch
from datamodules import OfflineDataModule
from momalit import baselines

torch.set_num_threads(1)
data = OfflineDataModule("reacher/expert-mix", env={{"observability": "independent"}}, transitions=2000)
pl.seed_everything(0)
module = baselines.{kind}(data.spec, width=16, gru_size=8, steps_per_epoch=5, batch_size=64)
trainer = pl.Trainer(
    max_epochs=2, accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False,
    enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
)
trainer.fit(module, datamodule=data)
weights = torch.cat([value.flatten().double() for value in module.state_dict().values()])
gathered = module.all_gather(weights)
if trainer.is_global_zero:
    assert torch.equal(gathered[0], gathered[1])
    open("agreed", "w").close()
trainer.strategy.barrier()
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["IQLModule", "MAIQLModule", "ITD3BCModule", "ICQLModule", "IOMARModule"])
def test_two_processes_end_with_the_same_weights(kind, reacher, tmp_path):
    (tmp_path / "learn.py").write_text(SCRIPT.format(kind=kind))
    done = subprocess.run([sys.executable, "learn.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "agreed").exists()
