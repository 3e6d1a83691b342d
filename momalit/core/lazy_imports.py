"""Public names that are imported when they are first used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from momalit.core.errors import UserError


def lazy_getattr(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's ``__getattr__``.

    Args:
        package: the package's ``__name__``.
        homes: for every public name, the submodule that it lives in.
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return find


def import_by_path(path: str) -> Any:
    """What a dotted path names, e.g. ``momalit.MOMAPPOModule``.

    Raises:
        UserError: there is no such thing.
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"class_path: found '{path}', which cannot be imported ({error})") from error
