"""Condenses jsonargparse's error messages, which have many lines, into one line."""

from __future__ import annotations

import difflib
import importlib
import re
from argparse import ArgumentError
from collections.abc import Iterable, Sequence

from jsonargparse import ArgumentParser, Namespace

from momalit.core.errors import UserError

KEY = re.compile(r'Parser key "([^"]+)"')
CLASS = re.compile(r"Problem with given class_path '([^']+)':\s*(.*)")
UNKNOWN = re.compile(r"Option '([^']+)' is not accepted")
NOT_ACCEPTED = re.compile(r"does not accept (?:option|nested key) '([^']+)'")
UNRECOGNIZED = re.compile(r"unrecognized arguments: (--?[^\s=]+)")
EXPECTED = re.compile(r"Expected an? (.+?)\. Got value: (.*)")
SUBTYPES = re.compile(r"Subtypes: \[(.*)\]")
VALUE = re.compile(r"Given value: (.*)")
NESTED = re.compile(r"NestedArg\(key='([^']+)', val=(.*)\)$")
REQUIRED = re.compile(r"the following arguments are required: (.+)")
LITERALS = re.compile(r"Literal\[([^\]]*)\]")
PLAIN_TYPE = re.compile(r"<class '(?:[\w.]*\.)?(\w+)'>")

# What is missing where a configuration names only the base class.
ABSTRACT = {"lightning.LightningDataModule": "the configuration of a dataset first, e.g. --config own.yaml"}


def parse_arguments(parser: ArgumentParser, arguments: Sequence[str]) -> Namespace:
    """Parses the arguments of a command that is no training.

    Raises:
        UserError: an argument is invalid.
    """
    try:
        return parser.parse_args(list(arguments))
    except ArgumentError as error:
        raise UserError(one_line(error.message, [action.dest for action in parser._actions])) from error


def one_line(message: str, keys: Sequence[str] = ()) -> str:
    """Returns an error message of one line with the key, what was found and what was expected.

    Args:
        message: the message of jsonargparse.
        keys: all keys that the command accepts, to suggest the nearest.
    """
    path = ".".join(KEY.findall(message))
    described = CLASS.findall(message)
    class_path, reason = described[-1] if described else ("", "")
    if match := UNRECOGNIZED.search(message) or NOT_ACCEPTED.search(message):
        found = match.group(1)
        return f"{found}: no such setting{_nearest(found.lstrip('-'), keys)}"
    if message.startswith("unrecognized arguments:"):
        return f"{message.partition(': ')[2]}: unexpected argument, expected one command and options that begin with --"
    if match := UNKNOWN.search(message):
        found = match.group(1)
        if class_path in ABSTRACT:
            return f"{_join(path, found)}: found it without a class for {path}, expected {ABSTRACT[class_path]}"
        owner = path if class_path.startswith("momalit.cli.") or not class_path else class_path
        return f"{_join(path, found)}: {owner} has no such setting{_nearest(found, class_settings(class_path))}"
    if match := REQUIRED.search(message):
        missing = [name.partition("fit.")[2] or name for name in match.group(1).split(", ")]
        return f"{', '.join(_join(path, name) for name in missing)}: missing, a value is required"
    if match := EXPECTED.search(message):
        return f"{path}: found {_quoted(match.group(2))}, expected {_types(match.group(1))}"
    if reason and not reason.startswith(("Does not validate", "Parser key")):
        return f"{path}.class_path: found '{class_path}', which cannot be used ({reason})"
    innermost = message[message.rfind('Parser key "') :]
    if (types := SUBTYPES.search(innermost)) and (value := VALUE.search(innermost)):
        nested = NESTED.search(value.group(1))
        found = nested.group(2) if nested else value.group(1)
        return f"{path}: found {_quoted(found)}, expected {_types(types.group(1))}"
    text = " ".join(PLAIN_TYPE.sub(r"\1", message).split())
    return text if len(text) <= 400 else text[:397] + "..."


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key and not name.startswith(f"{key}.") else name


def _nearest(found: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(found, list(known), n=1, cutoff=0.6)
    return f"; did you mean {nearest[0]}?" if nearest else ""


def class_settings(class_path: str) -> list[str]:
    """Returns the names of a class's settings, including inherited ones; empty if the class cannot be imported."""
    module, _, name = class_path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
        return [key for key in ArgumentParser(exit_on_error=False).add_class_arguments(kind) if key != "spec"]
    except (ImportError, AttributeError, ValueError, TypeError):
        return []


def _types(text: str) -> str:
    names = PLAIN_TYPE.sub(r"\1", text).replace("NoneType", "null").replace("typing.", "")
    parts = [part.strip() for part in re.split(r", (?![^\[]*\])", names)]
    return " or ".join(LITERALS.sub(lambda found: found.group(1).replace("'", ""), part) for part in parts)


def _quoted(value: str) -> str:
    value = value.strip()
    return value if value[:1] in "'\"[{" else f"'{value}'"
