"""Lazy imports: public names are imported when they are first used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from momalit.core.errors import UserError


def lazy_getattr(package: str, submodules: Mapping[str, str]) -> Callable[[str], Any]:
    """Returns a package's ``__getattr__``, which imports public names on first use.

    Args:
        package: the package's ``__name__``.
        submodules: the submodule that defines each public name.
    """

    def import_name(name: str) -> Any:
        if name not in submodules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{submodules[name]}"), name)

    return import_name


def import_by_path(path: str) -> Any:
    """Imports the object with a dotted path, e.g. ``momalit.MOMAPPOModule``.

    Raises:
        UserError: the path cannot be imported.
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"class_path: found '{path}', which cannot be imported ({error})") from error
