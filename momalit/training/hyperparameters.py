"""Hyper-parameters in the form that checkpoints store: plain Python values by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

_NOT_ARGUMENTS = ("self", "kwargs", "spec")


def plain_arguments(scope: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a constructor's arguments from its ``locals()`` as plain values, without the team's specification.

    Call it at the beginning of ``__init__``. Dataclasses become dictionaries, so that ``weights_only`` loading works.
    """
    values = {name: value for name, value in scope.items() if name not in _NOT_ARGUMENTS and not name.startswith("__")}
    return {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return list(value) if isinstance(value, tuple) else value
