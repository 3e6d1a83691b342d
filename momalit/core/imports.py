"""Imports by name: public names when they are first used, and what settings name."""

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
    return _import(module, name, f"class_path: found '{path}'")


def import_by_name(name: str, setting: str, expected: str) -> Any:
    """Imports the object that a setting names as ``package.module:name``.

    Args:
        name: the value of the setting.
        setting: the setting, for messages.
        expected: what the setting accepts, for messages.

    Raises:
        UserError: the value is no such name, or cannot be imported.
    """
    module, colon, attribute = name.partition(":")
    found = f"{setting}: found '{name}'"
    if not colon:
        raise UserError(f"{found}, expected {expected}")
    return _import(module, attribute, found, f", expected {expected}")


def _import(module: str, name: str, found: str, expected: str = "") -> Any:
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, SyntaxError, ValueError) as error:
        raise UserError(f"{found}, which cannot be imported ({error}){expected}") from error
