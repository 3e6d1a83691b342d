"""The study file: which runs a comparison is made of."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from momalit.core.errors import UserError

AXES = ("task", "dataset", "method", "setting")  # later ones win where two set the same option
ORDER = ("task", "dataset", "setting", "method")  # of the runs
KEYS = ("title", "description", "budget", "config", "options", "seeds", "skip", "cross_play")
LEVEL_KEYS = ("config", "options")


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Args:
        task: name of the task in the study.
        dataset: name of the dataset in the study; empty where the study names none.
        method: name of the method in the study.
        setting: name of the setting in the study; empty where the study names none.
        seed: of the training.
        words: what ``fit`` is given, without ``--run_dir``.
    """

    task: str
    dataset: str
    method: str
    setting: str
    seed: int
    words: tuple[str, ...]

    @property
    def group(self) -> Path:
        """Folder of the runs that differ in nothing but the seed, within the study's."""
        names = (getattr(self, axis) for axis in ORDER)
        return Path("runs", "-".join(_plain(name) for name in names if name))

    @property
    def folder(self) -> Path:
        """The run's directory within the study's."""
        return self.group / f"seed-{self.seed}"

    @property
    def name(self) -> str:
        """What people are told that is running."""
        return f"{self.group.name}, seed {self.seed}"


@dataclass(frozen=True)
class Study:
    """A grid of runs.

    Args:
        name: the file's.
        text: the file's contents, which travel with the results.
        cells: every run, seeds changing fastest: runs that share a world model then seldom train it side by side.
        cross_play: methods whose agents of different seeds are put into teams.
    """

    name: str
    text: str
    cells: tuple[Cell, ...]
    cross_play: tuple[str, ...]

    @property
    def groups(self) -> dict[Path, list[Cell]]:
        """The runs that differ in nothing but the seed, by their folder."""
        found: dict[Path, list[Cell]] = {}
        for cell in self.cells:
            found.setdefault(cell.group, []).append(cell)
        return found


def read_study(path: Path, content: Mapping[str, Any]) -> Study:
    """Makes the runs that a study file describes.

    Args:
        path: the file, for its name and text and for messages.
        content: what it says: mappings ``tasks``, ``methods`` and, where wanted, ``datasets`` and ``settings`` of names
            to levels, where a level has a ``config`` (a name or a list) and ``options``, both optional; the same two
            for every run; ``seeds``, a number or a list; ``skip``, a list of mappings of axes to names;
            ``cross_play``, a list of methods.

    Raises:
        UserError: naming the key.
    """
    plural = {f"{axis}s": axis for axis in AXES}
    _known(path, "", content, (*KEYS, *plural))
    levels: dict[str, dict[str, Mapping[str, Any]]] = {}
    for key, axis in plural.items():
        given = content.get(key)
        if given is None and axis in ("dataset", "setting"):
            given = {"": {}}
        if not isinstance(given, Mapping) or not given:
            raise UserError(f"{path}: {key}: found {_shown(given)}, expected a mapping of names to settings")
        levels[axis] = {str(name): _level(path, f"{key}.{name}", level) for name, level in given.items()}
    common = _level(path, "options", {k: content[k] for k in LEVEL_KEYS if content.get(k) is not None})
    seeds = _seeds(path, content.get("seeds", 1))
    skips = [_skip(path, i, entry, levels) for i, entry in enumerate(content.get("skip") or [])]
    cross = content.get("cross_play") or []
    if not isinstance(cross, list) or set(cross) - set(levels["method"]):
        raise UserError(f"{path}: cross_play: found {_shown(cross)}, expected a list of {', '.join(levels['method'])}")
    cells = []
    for names in product(*(levels[axis] for axis in ORDER)):
        chosen = dict(zip(ORDER, names, strict=True))
        if any(all(chosen[axis] in values for axis, values in skip.items()) for skip in skips):
            continue
        parts = [common, *(levels[axis][chosen[axis]] for axis in AXES)]
        cells += [Cell(**chosen, seed=seed, words=tuple(_words(parts, seed))) for seed in seeds]
    if not cells:
        raise UserError(f"{path}: skip: leaves no run, expected at least one")
    _distinct(path, cells)
    return Study(path.stem, path.read_text(encoding="utf-8"), tuple(cells), tuple(cross))


def _level(path: Path, key: str, level: Any) -> dict[str, Any]:
    level = {} if level is None else {"config": level} if isinstance(level, str) else level
    if not isinstance(level, Mapping):
        raise UserError(f"{path}: {key}: found {_shown(level)}, expected config and options, or a config's name")
    _known(path, f"{key}.", level, LEVEL_KEYS)
    files = level.get("config") or []
    options = level.get("options") or {}
    if not isinstance(options, Mapping):
        raise UserError(f"{path}: {key}.options: found {_shown(options)}, expected a mapping such as model.lr: 1e-3")
    return {"config": [files] if isinstance(files, str) else list(files), "options": dict(options)}


def _seeds(path: Path, given: Any) -> list[int]:
    seeds = list(range(given)) if isinstance(given, int) and not isinstance(given, bool) else given
    whole = isinstance(seeds, list) and all(isinstance(seed, int) and seed >= 0 for seed in seeds)
    if not whole or not seeds or len(set(seeds)) < len(seeds):
        raise UserError(f"{path}: seeds: found {_shown(given)}, expected their number or a list of different ones")
    return seeds


def _skip(path: Path, i: int, entry: Any, levels: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    key = f"skip[{i}]"
    if not isinstance(entry, Mapping) or not entry:
        raise UserError(f"{path}: {key}: found {_shown(entry)}, expected a mapping of {', '.join(AXES)} to names")
    _known(path, f"{key}.", entry, AXES)
    found = {axis: [str(n) for n in (names if isinstance(names, list) else [names])] for axis, names in entry.items()}
    for axis, names in found.items():
        for name in names:
            if name not in levels[axis]:
                raise UserError(f"{path}: {key}.{axis}: found {name!r}, expected one of {', '.join(levels[axis])}")
    return found


def _words(parts: Sequence[Mapping[str, Any]], seed: int) -> Iterator[str]:
    for part in parts:
        for name in part["config"]:
            yield from ("--config", str(name))
    for part in parts:
        for key, value in part["options"].items():
            yield f"--{key}={value if isinstance(value, str) else json.dumps(value)}"
    yield f"--seed_everything={seed}"


def _known(path: Path, prefix: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
            raise UserError(f"{path}: {prefix}{key}: no such key; {hint}")


def _distinct(path: Path, cells: Sequence[Cell]) -> None:
    seen: dict[Path, Cell] = {}
    for cell in cells:
        other = seen.setdefault(cell.folder, cell)
        if other is not cell:
            raise UserError(f"{path}: two runs would share the folder {cell.folder}; give their levels other names")


def _plain(name: str) -> str:
    """A name as a folder may be called."""
    return re.sub(r"[^\w.]+", "_", name.lower()).strip("_") or "unnamed"


def _shown(value: Any) -> str:
    return "nothing" if value is None else repr(value)[:60]
