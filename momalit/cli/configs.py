"""Finding configurations by name, and reading a command line's ``--config`` options."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from momalit.core.errors import UserError

PACKAGE = Path(__file__).resolve().parents[1]


def shipped() -> Path:
    """The folder of the configurations that come with the library: the repository's, or the installed package's."""
    beside = PACKAGE.parent / "configs"
    return beside if beside.is_dir() else PACKAGE / "configs"


STUDIES = "studies/"


def names() -> list[str]:
    """Names of all shipped configurations, e.g. ``baselines/bc.yaml``, without studies."""
    return [name for name in _files() if not name.startswith(STUDIES)]


def studies() -> list[str]:
    """Names of all shipped studies, e.g. ``studies/agreement_icg.yaml``."""
    return [name for name in _files() if name.startswith(STUDIES)]


def _files() -> list[str]:
    return sorted(path.relative_to(shipped()).as_posix() for path in shipped().rglob("*.yaml"))


def find(name: str, known: Sequence[str] | None = None, what: str = "--config") -> Path:
    """The file meant by ``name``: one where you stand, else one that is shipped; ``.yaml`` may be left out.

    Args:
        name: as it was given.
        known: names to suggest; those of all configurations by default.
        what: is looked for, for the message.

    Raises:
        UserError: there is none, with the nearest names.
    """
    short = name.removeprefix("./").removeprefix("configs/")
    for candidate in (Path(name), shipped() / short, Path(f"{name}.yaml"), shipped() / f"{short}.yaml"):
        if candidate.is_file():
            return candidate.resolve()
    known = names() if known is None else known
    by_stem = [other for other in known if Path(other).stem == Path(short).stem]
    near = by_stem or difflib.get_close_matches(short, known, n=3, cutoff=0.4) or known
    raise UserError(f"{what}: found no file '{name}', neither here nor in {shipped()}; nearest: {', '.join(near)}")


def read(path: Path) -> dict[str, Any]:
    """The settings in a file.

    Raises:
        UserError: it is no YAML mapping, with the line.
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


def split(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Separates the configurations of a command line from its other words.

    Options win over configurations wherever they stand, so the caller puts the files first.

    Returns:
        the files in their order, and the other words.

    Raises:
        UserError: a configuration is missing or cannot be read.
    """
    files: list[str] = []
    others: list[str] = []
    rest = iter(words)
    for word in rest:
        option, equals, value = word.partition("=")
        if option not in ("--config", "-c"):
            others.append(word)
        elif equals:
            files.append(value)
        else:
            following = next(rest, None)
            if following is None or following.startswith("--"):
                raise UserError("--config: found no name after it, expected one such as icg.yaml")
            files.append(following)
    paths = [find(name) for name in files]
    for path in paths:
        read(path)
    return paths, others
