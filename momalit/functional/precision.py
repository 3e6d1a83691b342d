"""Helpers for computations that need at least 32 bits, independent of the precision of the networks."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """Converts 16-bit floats to 32 bits and leaves wider ones unchanged."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def full_precision(values: Tensor) -> AbstractContextManager[object]:
    """Returns a context without autocast on the device of ``values``, so that matrix products are not rounded."""
    kind = values.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
