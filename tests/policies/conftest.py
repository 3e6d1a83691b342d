"""A dataset of the coordination game and a world model of it, made once."""

import lightning.pytorch as pl
import pytest

from datamodules import OfflineDataModule
from momalit.world_model.module import WorldModelModule
from tests.processes import make_trainer


@pytest.fixture(scope="session")
def data(momalit_home):
    """100 episodes. An agent observes only its own last action, so that it cannot correct a first mismatch."""
    return OfflineDataModule("icg/unfavourable", env={"observability": "own"}, transitions=1000)


@pytest.fixture(scope="session")
def world_model(data, tmp_path_factory):
    """The path of a trained checkpoint."""
    pl.seed_everything(0, verbose=False)
    module = WorldModelModule(
        data.spec, n_members=4, n_elites=3, width=64, n_blocks=1, lr=3e-3, batch_size=64, termination="never"
    )
    trainer = make_trainer(80)
    trainer.fit(module, datamodule=data)
    path = tmp_path_factory.mktemp("world_model") / "last.ckpt"
    trainer.save_checkpoint(path)
    return path
