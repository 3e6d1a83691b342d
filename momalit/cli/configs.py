"""Finds configuration files by name and reads the ``--config`` options of a command line."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from momalit.core.errors import UserError

PACKAGE = Path(__file__).resolve().parents[1]


def directory() -> Path:
    """Returns the folder of the built-in configurations, in the repository or else in the installed package."""
    in_repository = PACKAGE.parent / "configs"
    return in_repository if in_repository.is_dir() else PACKAGE / "configs"


STUDIES = "studies/"


def names() -> list[str]:
    """Returns the names of all built-in configurations except studies, e.g. ``baselines/bc.yaml``."""
    return [name for name in _files() if not name.startswith(STUDIES)]


def studies() -> list[str]:
    """Returns the names of all built-in studies, e.g. ``studies/agreement_icg.yaml``."""
    return [name for name in _files() if name.startswith(STUDIES)]


def _files() -> list[str]:
    return sorted(path.relative_to(directory()).as_posix() for path in directory().rglob("*.yaml"))


def find(name: str, known: Sequence[str] | None = None, what: str = "--config") -> Path:
    """Returns the path of the file ``name``. Files in the working directory precede built-in ones.

    Args:
        name: name or path of the file, with or without ``.yaml``.
        known: names to suggest if there is no such file. Default: all configurations except studies.
        what: option or argument at the start of the error message.

    Raises:
        UserError: there is no such file. The message suggests the nearest names.
    """
    short = name.removeprefix("./").removeprefix("configs/")
    for candidate in (Path(name), directory() / short, Path(f"{name}.yaml"), directory() / f"{short}.yaml"):
        if candidate.is_file():
            return candidate.resolve()
    known = names() if known is None else known
    same_stem = [other for other in known if Path(other).stem == Path(short).stem]
    nearest = same_stem or difflib.get_close_matches(short, known, n=3, cutoff=0.4) or known
    raise UserError(
        f"{what}: found no file '{name}' in the working directory or in {directory()}; nearest: {', '.join(nearest)}"
    )


def read(path: Path) -> dict[str, Any]:
    """Returns the settings in a file.

    Raises:
        UserError: the file is not a YAML mapping. The message has the line of a syntax error.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise UserError(f"{path}, line {line}: is not valid YAML ({error.problem or error.context})") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: is not a YAML text file") from error
    if content is not None and not isinstance(content, dict):
        raise UserError(f"{path}: found a {type(content).__name__}, expected settings as `key: value`")
    return content or {}


def split_arguments(arguments: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Separates the ``--config`` options of a command line from its other arguments.

    Other options override configurations regardless of their position, so the caller puts the files first.

    Returns:
        the files in their order, and the other arguments.

    Raises:
        UserError: a configuration is missing or cannot be read.
    """
    files: list[str] = []
    others: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        option, equals, value = argument.partition("=")
        if option not in ("--config", "-c"):
            others.append(argument)
        elif equals:
            files.append(value)
        else:
            following = next(rest, None)
            if following is None or following.startswith("--"):
                raise UserError("--config: found no value, expected a name or path, e.g. icg.yaml")
            files.append(following)
    paths = [find(name) for name in files]
    for path in paths:
        read(path)
    return paths, others
