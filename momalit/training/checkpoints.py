"""Loading checkpoints, with error messages that a user can act on."""

from __future__ import annotations

import os
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any, TypeVar

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from momalit.core.errors import UserError
from momalit.core.files import replacing

LAST, PREVIOUS, BEST = "last", "previous", "best"  # names of the checkpoints of a run

Module = TypeVar("Module", bound=pl.LightningModule)


class CheckpointFiles(TorchCheckpointIO):
    """Writes checkpoints so that a crash leaves the old file or the new one, and keeps the one before the last.

    The content reaches the disk before the file takes its name. ``last.ckpt`` becomes ``previous.ckpt`` when the next
    one is saved. Other places than local files are left to Lightning.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            _write(checkpoint, partial)
            if path.name == f"{LAST}.ckpt" and path.is_file():
                with replacing(path.with_name(f"{PREVIOUS}.ckpt")) as copy:
                    copy.unlink()
                    os.link(path, copy)


def _write(checkpoint: dict[str, Any], path: Path) -> None:
    """Saves to a new file.

    Raises:
        OSError: the file cannot be written. ``torch.save`` hides this behind a RuntimeError about positions.
    """
    try:
        with path.open("wb") as file:
            torch.save(checkpoint, file)
    except RuntimeError as error:
        cause = error.__cause__ or error.__context__
        if not isinstance(cause, OSError):
            raise
        raise OSError(cause.errno, cause.strerror, str(path)) from error


def damage_of(path: Path) -> str | None:
    """Compares a checkpoint with the checksums that it contains.

    Returns:
        what is wrong, or None if the file is whole.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        return " ".join(str(error).split()).lower()
    return None if wrong is None else f"{wrong} differs from its checksum"


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint of tensors and plain values onto the CPU.

    Raises:
        UserError: the file does not exist, is damaged or is not a checkpoint. The message names whole ones beside it.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint {path}: no such file")
    if damage := damage_of(path):
        raise UserError(f"checkpoint {path}: damaged or not a checkpoint ({damage}){_whole_ones_beside(path)}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise UserError(f"checkpoint {path}: cannot be read, because it is damaged or not a checkpoint") from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise UserError(f"checkpoint {path}: found no 'state_dict', expected a Lightning checkpoint")
    return content


def _whole_ones_beside(path: Path) -> str:
    """Says which checkpoints in the same directory can be used instead."""
    others = [path.with_name(f"{name}.ckpt") for name in (LAST, PREVIOUS, BEST)]
    whole = [other.stem for other in others if other != path and other.is_file() and damage_of(other) is None]
    return f"; beside it, {' and '.join(whole)} can be read: --ckpt_path {whole[0]}" if whole else ""


def load_module(path: str | Path, kind: type[Module]) -> Module:
    """Loads a module that a trainer has saved, on the CPU and in evaluation mode.

    Raises:
        UserError: the file cannot be read or contains a module of another class.
    """
    content = read_checkpoint(path)
    try:
        module = kind(**{k: v for k, v in content["hyper_parameters"].items() if not k.startswith("_")})
        module.on_load_checkpoint(content)
        module.load_state_dict(content["state_dict"])
    except (TypeError, KeyError, RuntimeError) as error:
        raise UserError(f"checkpoint {path}: found another kind of module, expected a {kind.__name__}") from error
    return module.eval()
