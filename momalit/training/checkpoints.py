"""Loading checkpoints, with error messages that a user can act on."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, TypeVar

import lightning.pytorch as pl
import torch

from momalit.core.errors import UserError

Module = TypeVar("Module", bound=pl.LightningModule)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint of tensors and plain values onto the CPU.

    Raises:
        UserError: the file does not exist or is not a checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint {path}: no such file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise UserError(f"checkpoint {path}: cannot be read, because it is damaged or not a checkpoint") from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise UserError(f"checkpoint {path}: found no 'state_dict', expected a Lightning checkpoint")
    return content


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
