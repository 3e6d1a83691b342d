"""Names and locations of the datasets that this package generates."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from momalit.core.errors import UserError
from momalit.envs.factory import TASKS, suggestion

DEFAULT_TRANSITIONS = {"ant": 250_000, "icg": 10_000, "reacher": 100_000, "ridges": 10_000}
KINDS = {
    "ant": ("random", "medium", "medium-replay", "full-replay", "medium-expert", "expert"),
    "icg": ("favourable", "unfavourable", "uncoordinated", "conflicting"),
    "reacher": ("expert-mix", "random"),
    "ridges": ("unfavourable", "conflicting"),
}
ANY_TASK_KINDS = ("random",)  # kinds of dataset that any environment supports


def home() -> Path:
    """Directory that holds the datasets: ``$MOMALIT_HOME``, or ``~/.cache/momalit``.

    Raises:
        UserError: neither variable nor home directory exists.
    """
    try:
        return Path(os.environ.get("MOMALIT_HOME") or Path.home() / ".cache" / "momalit").expanduser()
    except RuntimeError as error:
        raise UserError(f"MOMALIT_HOME: found none and no home directory ({error}), expected a directory") from error


def datasets_root() -> Path:
    """Directory that Minari needs as ``MINARI_DATASETS_PATH`` to find the datasets."""
    return home() / "datasets"


def builtin_names() -> list[str]:
    """Names of all built-in datasets."""
    return [f"{task}/{kind}" for task, kinds in KINDS.items() for kind in kinds]


def split_name(dataset: str) -> tuple[str, str]:
    """Splits the name of a dataset into task and kind.

    The name is a built-in one, or asks for random actions in any environment: ``mamujoco/random``,
    ``package.module:callable/random``.

    Raises:
        UserError: there is no dataset of that name.
    """
    task, _, kind = dataset.rpartition("/")
    if kind in KINDS.get(task, ()) or ((":" in task or task in TASKS) and kind in ANY_TASK_KINDS):
        return task, kind
    others = [f"{name}/{kind}" for name in TASKS for kind in ANY_TASK_KINDS if kind not in KINDS.get(name, ())]
    names = [*builtin_names(), *others]
    near = [name for name in names if name.startswith(f"{task}/")] or names
    raise UserError(
        f"data.dataset: found {dataset!r}, expected a file, a Minari dataset directory or one of"
        f" {', '.join(names)}{suggestion(dataset, near)}"
    )


def is_name(dataset: str) -> bool:
    """Whether ``dataset`` is a name rather than a path: no such file exists and it does not look like a path."""
    return not (
        Path(dataset).expanduser().exists()
        or dataset.startswith(("/", "./", "../", "~"))
        or Path(dataset).suffix in (".hdf5", ".h5", ".json")
        or dataset.count("/") > 1
    )


def dataset_id(task: str, kind: str, settings: Mapping[str, Any], transitions: int, seed: int) -> str:
    """Minari's identifier of a generated dataset, which is also its path below ``datasets_root()``.

    Characters that Minari does not allow are replaced. A digest keeps the identifiers of different settings distinct.
    """
    return f"{_replace_invalid(task)}/{kind}/{_slug(settings)}-n{transitions}-s{seed}-v0"


def import_id(task: str, source: str, settings: Mapping[str, Any], digest: str) -> str:
    """Minari's identifier of an imported dataset: source, environment settings, and a digest of all its inputs."""
    return f"{_replace_invalid(task)}/imported-{_replace_invalid(source)}/{_slug(settings)}-{digest[:12]}-v0"


def _slug(settings: Mapping[str, Any]) -> str:
    full = "_".join(f"{key}-{_as_text(settings[key])}" for key in sorted(settings)) or "default"
    slug = _replace_invalid(full)
    if slug != full or len(slug) > 80:
        slug = f"{slug[:60]}-{hashlib.sha256(full.encode()).hexdigest()[:8]}"
    return slug


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), sort_keys=True, default=str)


def _replace_invalid(text: str) -> str:
    return re.sub(r"[^-\w]", "_", text)
