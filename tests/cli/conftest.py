"""A fixture that runs commands in the test process, because starting Python takes longer than a tiny fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from momalit.cli import main

TINY = """\
trainer:
  max_epochs: 2
  accelerator: cpu
model:
  class_path: momalit.MOMAPPOModule
  init_args:
    horizon: 3
    n_rollouts: 4
    burn_in: 2
    width: 8
    gru_size: 8
    ppo_epochs: 1
    n_minibatches: 2
data:
  class_path: datamodules.OfflineDataModule
  init_args:
    dataset: icg/unfavourable
    transitions: 1000
world_model:
  n_members: 2
  n_elites: 2
  width: 8
  n_blocks: 1
  max_epochs: 1
warm_start:
  window: 5
  max_epochs: 1
evaluation:
  episodes: 2
  test_episodes: 3
  imagined_episodes: 4
"""


@dataclass
class Outcome:
    """Exit code and standard error of a command."""

    code: int
    stderr: str


Command = Callable[..., Outcome]


@pytest.fixture
def momalit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command in a folder that contains only ``tiny.yaml``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)

    def run(*arguments: str) -> Outcome:
        capsys.readouterr()
        code = main(arguments)
        return Outcome(code, capsys.readouterr().err)

    return run
