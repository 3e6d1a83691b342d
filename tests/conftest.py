"""A separate MOMALIT_HOME for the tests, and small datasets that are made once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from datamodules import OfflineDataModule
from momalit.training.cpu import configure_cpu

pytest_plugins = ["tests.reliability"]

configure_cpu()
torch.set_num_threads(int(os.environ.get("MOMALIT_TEST_THREADS", "1")))  # whatever OMP_NUM_THREADS says


@pytest.fixture(scope="session", autouse=True)
def momalit_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keeps the tests' files out of the user's ``~/.cache/momalit``."""
    home = tmp_path_factory.mktemp("momalit")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOMALIT_HOME", str(home))
        yield home


@pytest.fixture(scope="session")
def icg(momalit_home: Path) -> OfflineDataModule:
    """100 episodes of 10 steps, with all conventions equally frequent."""
    data = OfflineDataModule("icg/unfavourable", transitions=1000)
    assert data.path.is_relative_to(momalit_home)
    return data


@pytest.fixture(scope="session")
def reacher(momalit_home: Path) -> OfflineDataModule:
    """40 episodes of 50 steps. Each agent observes its own joint and the target."""
    data = OfflineDataModule("reacher/expert-mix", env={"observability": "independent"}, transitions=2000)
    assert data.path.is_relative_to(momalit_home)
    return data


@pytest.fixture(scope="session")
def tiny_world_model(momalit_home: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a checkpoint with the world model of ``tests.tiny``."""
    from tests.tiny import fit

    module = fit("world_model", 15)
    path = tmp_path_factory.mktemp("world_model") / "last.ckpt"
    module.trainer.save_checkpoint(path)
    return str(path)
