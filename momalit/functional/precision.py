"""Numbers wide enough for what must be exact, whatever the networks compute in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """Floats of at least 32 bits: those of 16 are widened, those of 64 stay."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def full_precision(values: Tensor) -> AbstractContextManager[object]:
    """A context in which products of matrices on the device of ``values`` keep the precision of their factors."""
    kind = values.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
