"""Checkpoints on disk: whole or refused by name, and the one before the last."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from momalit.core.errors import UserError
from momalit.training.checkpoints import CheckpointFiles, damage_of, read_checkpoint


def save(path: Path, epoch: int) -> None:
    CheckpointFiles().save_checkpoint({"state_dict": {"weight": torch.randn(50, 50)}, "epoch": epoch}, path)


def test_the_checkpoint_before_the_last_is_kept(tmp_path: Path) -> None:
    for epoch in range(3):
        save(tmp_path / "last.ckpt", epoch)
        save(tmp_path / "best.ckpt", epoch)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["best.ckpt", "last.ckpt", "previous.ckpt"]
    epochs = [read_checkpoint(tmp_path / f"{name}.ckpt")["epoch"] for name in ("previous", "last")]
    assert epochs == [1, 2]


@pytest.mark.fault("checkpoint cut short", "truncated at random lengths", "seen, refused by name", times=40)
def test_every_truncation_is_seen(tmp_path: Path) -> None:
    path, rng = tmp_path / "last.ckpt", random.Random(0)
    save(path, 0)
    whole = path.read_bytes()
    for _ in range(40):
        path.write_bytes(whole[: rng.randrange(len(whole))])
        assert damage_of(path) is not None


@pytest.mark.fault("bit flipped in a checkpoint's weights", "one random bit", "seen, refused by name", times=200)
def test_every_flipped_bit_of_the_weights_is_seen(tmp_path: Path) -> None:
    path, rng = tmp_path / "last.ckpt", random.Random(0)
    save(path, 0)
    whole = path.read_bytes()
    weights = whole.index(read_checkpoint(path)["state_dict"]["weight"].numpy().tobytes())
    assert damage_of(path) is None
    for _ in range(200):
        flipped = bytearray(whole)
        flipped[weights + rng.randrange(50 * 50 * 4)] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(flipped))
        assert damage_of(path) is not None


def test_a_damaged_checkpoint_names_whole_ones_beside_it(tmp_path: Path) -> None:
    for epoch in range(2):
        save(tmp_path / "last.ckpt", epoch)
    save(tmp_path / "best.ckpt", 0)
    path = tmp_path / "last.ckpt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"last.ckpt: damaged .*; beside it, previous and best can be read"):
        read_checkpoint(path)
    (tmp_path / "previous.ckpt").write_bytes(b"")
    (tmp_path / "best.ckpt").unlink()
    with pytest.raises(UserError, match=r"damaged or not a checkpoint \(file is not a zip file\)$"):
        read_checkpoint(path)
