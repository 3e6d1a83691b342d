"""Reads a study file, which describes a grid of training runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from momalit.core.checks import require_choice, require_known_keys
from momalit.core.errors import UserError
from momalit.studies.claims import read_claims, read_trend_keys

AXES = ("task", "dataset", "method", "setting")  # if two set the same option, the later one overrides
ORDER = ("task", "dataset", "setting", "method")  # of the runs and of the columns in results
KEYS = (
    "title",
    "description",
    "budget",
    "config",
    "options",
    "seeds",
    "skip",
    "cross_play",
    "claims",
    "x_axis",
    "reach",
)
LEVEL_KEYS = ("config", "options")


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Args:
        task: name of the task in the study.
        dataset: name of the dataset in the study, or an empty string if the study has none.
        method: name of the method in the study.
        setting: name of the setting in the study, or an empty string if the study has none.
        seed: training seed.
        arguments: command-line arguments of ``fit``, without ``--run_dir``.
    """

    task: str
    dataset: str
    method: str
    setting: str
    seed: int
    arguments: tuple[str, ...]

    @property
    def group(self) -> Path:
        """Path, within the study's folder, of the runs that differ only in their seed."""
        names = (getattr(self, axis) for axis in ORDER)
        return Path("runs", "-".join(_folder_name(name) for name in names if name))

    @property
    def folder(self) -> Path:
        """Path of the run's directory within the study's folder."""
        return self.group / f"seed-{self.seed}"

    @property
    def name(self) -> str:
        """Name of the run in messages."""
        return f"{self.group.name}, seed {self.seed}"


@dataclass(frozen=True)
class Study:
    """A grid of runs.

    Args:
        name: name of the study file without its extension.
        text: contents of the study file, which are stored with the results.
        cells: all runs. Seeds change fastest, so runs that share a world model rarely train it at the same time.
        cross_play: methods whose agents from different seeds are evaluated in cross-play teams.
    """

    name: str
    text: str
    cells: tuple[Cell, ...]
    cross_play: tuple[str, ...]

    @property
    def groups(self) -> dict[Path, list[Cell]]:
        """The runs by group. The runs of a group differ only in their seed."""
        groups: dict[Path, list[Cell]] = {}
        for cell in self.cells:
            groups.setdefault(cell.group, []).append(cell)
        return groups


def read_study(path: Path, content: Mapping[str, Any]) -> Study:
    """Returns the study that a study file describes.

    The file has these keys:

    - ``tasks`` and ``methods``, and optionally ``datasets`` and ``settings``: mappings from names to levels. A level
      has an optional ``config`` (a name or a list of names) and optional ``options``.
    - ``config`` and ``options``: the same two, applied to all runs.
    - ``seeds``: the number of seeds, or a list of them.
    - ``skip``: a list of mappings from axes to names. Runs that match all entries of a mapping are left out.
    - ``cross_play``: a list of methods.
    - ``claims``: a list of what the report checks, see ``momalit.studies.claims``.
    - ``x_axis`` and ``reach``: what the report draws returns over, and a score, see ``momalit.studies.claims``.

    Args:
        path: path of the file.
        content: parsed contents of the file.

    Raises:
        UserError: a key is unknown or has an invalid value. The message has the key.
    """
    axis_keys = {f"{axis}s": axis for axis in AXES}
    require_known_keys(f"{path}: ", content, (*KEYS, *axis_keys))
    levels: dict[str, dict[str, Mapping[str, Any]]] = {}
    for key, axis in axis_keys.items():
        given = content.get(key)
        if given is None and axis in ("dataset", "setting"):
            given = {"": {}}
        if not isinstance(given, Mapping) or not given:
            raise UserError(f"{path}: {key}: found {_repr(given)}, expected a mapping from names to settings")
        levels[axis] = {str(name): _level(path, f"{key}.{name}", level) for name, level in given.items()}
    common = _level(path, "", {k: content[k] for k in LEVEL_KEYS if content.get(k) is not None})
    seeds = _seeds(path, content.get("seeds", 1))
    skip = content.get("skip") or []
    if not isinstance(skip, list):
        raise UserError(
            f"{path}: skip: found {_repr(skip)}, expected a list of mappings from {', '.join(AXES)} to names"
        )
    skips = [_skip(path, i, entry, levels) for i, entry in enumerate(skip)]
    cross_play = content.get("cross_play") or []
    if not isinstance(cross_play, list) or any(name not in list(levels["method"]) for name in cross_play):
        methods = ", ".join(levels["method"])
        raise UserError(f"{path}: cross_play: found {_repr(cross_play)}, expected a list of methods from {methods}")
    read_trend_keys(path, content)
    for number, claim in enumerate(read_claims(path, content.get("claims"), AXES)):
        for axis, name in claim.where.items():
            require_choice(f"{path}: claims[{number}].{axis}", name, levels[axis])
    cells = []
    for names in product(*(levels[axis] for axis in ORDER)):
        chosen = dict(zip(ORDER, names, strict=True))
        if any(all(chosen[axis] in values for axis, values in entry.items()) for entry in skips):
            continue
        parts = [common, *(levels[axis][chosen[axis]] for axis in AXES)]
        cells += [Cell(**chosen, seed=seed, arguments=tuple(_arguments(parts, seed))) for seed in seeds]
    if not cells:
        raise UserError(f"{path}: skip: found no remaining runs, expected at least one")
    _require_distinct_folders(path, cells)
    return Study(path.stem, path.read_text(encoding="utf-8"), tuple(cells), tuple(cross_play))


def _level(path: Path, key: str, level: Any) -> dict[str, Any]:
    """Returns a level with its ``config`` as a list and its ``options`` as a dictionary."""
    level = {} if level is None else {"config": level} if isinstance(level, str) else level
    if not isinstance(level, Mapping):
        raise UserError(
            f"{path}: {key}: found {_repr(level)}, expected a mapping with config and options, or a config's name"
        )
    prefix = f"{path}: {key}." if key else f"{path}: "
    require_known_keys(prefix, level, LEVEL_KEYS)
    files = level.get("config") or []
    files = [files] if isinstance(files, str) else files
    if not isinstance(files, list) or not all(isinstance(name, str) for name in files):
        raise UserError(f"{prefix}config: found {_repr(files)}, expected a config's name or a list of names")
    options = level.get("options") or {}
    if not isinstance(options, Mapping):
        raise UserError(f"{prefix}options: found {_repr(options)}, expected a mapping such as model.lr: 1e-3")
    return {"config": files, "options": dict(options)}


def _seeds(path: Path, given: Any) -> list[int]:
    seeds = list(range(given)) if isinstance(given, int) and not isinstance(given, bool) else given
    valid = isinstance(seeds, list) and all(isinstance(seed, int) and seed >= 0 for seed in seeds)
    if not valid or not seeds or len(set(seeds)) < len(seeds):
        raise UserError(
            f"{path}: seeds: found {_repr(given)}, expected the number of seeds or a list of distinct seeds"
        )
    return seeds


def _skip(path: Path, i: int, entry: Any, levels: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    key = f"skip[{i}]"
    if not isinstance(entry, Mapping) or not entry:
        raise UserError(f"{path}: {key}: found {_repr(entry)}, expected a mapping from {', '.join(AXES)} to names")
    require_known_keys(f"{path}: {key}.", entry, AXES)
    skipped = {axis: [str(n) for n in (names if isinstance(names, list) else [names])] for axis, names in entry.items()}
    for axis, names in skipped.items():
        for name in names:
            require_choice(f"{path}: {key}.{axis}", name, levels[axis])
    return skipped


def _arguments(parts: Sequence[Mapping[str, Any]], seed: int) -> Iterator[str]:
    for part in parts:
        for name in part["config"]:
            yield from ("--config", str(name))
    for part in parts:
        for key, value in part["options"].items():
            yield f"--{key}={value if isinstance(value, str) else json.dumps(value)}"
    yield f"--seed_everything={seed}"


def _require_distinct_folders(path: Path, cells: Sequence[Cell]) -> None:
    seen: dict[Path, Cell] = {}
    for cell in cells:
        if seen.setdefault(cell.folder, cell) is not cell:
            raise UserError(
                f"{path}: found two runs with the folder {cell.folder}, expected names with distinct folders"
            )


def _folder_name(name: str) -> str:
    """Converts a name to a valid folder name."""
    return re.sub(r"[^\w.]+", "_", name.lower()).strip("_") or "unnamed"


def _repr(value: Any) -> str:
    return "nothing" if value is None else repr(value)[:60]
