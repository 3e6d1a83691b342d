"""Names of the datasets that can be made here, and where they are kept."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from momalit.core.errors import UserError
from momalit.envs.factory import TASKS, nearest

DEFAULT_TRANSITIONS = {"ant": 250_000, "icg": 10_000, "reacher": 100_000}
KINDS = {
    "ant": ("random", "medium", "medium-replay", "full-replay", "medium-expert", "expert"),
    "icg": ("favourable", "unfavourable", "uncoordinated"),
    "reacher": ("expert-mix", "random"),
}
ANY_TASK = ("random",)  # what can be collected in any environment


def home() -> Path:
    """Where datasets are kept: ``$MOMALIT_HOME``, or ``~/.cache/momalit``."""
    return Path(os.environ.get("MOMALIT_HOME") or Path.home() / ".cache" / "momalit").expanduser()


def datasets_root() -> Path:
    """The directory to give Minari as ``MINARI_DATASETS_PATH``."""
    return home() / "datasets"


def builtin_names() -> list[str]:
    """All datasets that can be made by name."""
    return [f"{task}/{kind}" for task, kinds in KINDS.items() for kind in kinds]


def split_name(dataset: str) -> tuple[str, str]:
    """Task and kind of a dataset that can be made.

    That is a built-in one, or random play in any environment: ``mamujoco/random``, ``package.module:callable/random``.

    Raises:
        UserError: there is no such dataset.
    """
    task, _, kind = dataset.rpartition("/")
    if kind in KINDS.get(task, ()) or ((":" in task or task in TASKS) and kind in ANY_TASK):
        return task, kind
    names = builtin_names()
    raise UserError(
        f"data.dataset: found {dataset!r}, expected a file, a Minari dataset directory or one of"
        f" {', '.join(names)}{nearest(dataset, names)}"
    )


def is_name(dataset: str) -> bool:
    """Whether ``dataset`` reads as a name rather than a path: nothing lies there, and it has no ending or prefix."""
    return not (
        Path(dataset).expanduser().exists()
        or dataset.startswith(("/", "./", "../", "~"))
        or Path(dataset).suffix in (".hdf5", ".h5", ".json")
        or dataset.count("/") > 1
    )


def dataset_id(task: str, kind: str, settings: Mapping[str, Any], transitions: int, seed: int) -> str:
    """Minari's identifier, which is also the path below ``datasets_root()``.

    Letters that Minari does not allow are replaced, and a digest keeps what they told apart.
    """
    return f"{_allowed(task)}/{kind}/{_slug(settings)}-n{transitions}-s{seed}-v0"


def import_id(task: str, source: str, settings: Mapping[str, Any], digest: str) -> str:
    """Minari's identifier of an imported dataset: its source, the team's settings, a digest of all it rests on."""
    return f"{_allowed(task)}/imported-{_allowed(source)}/{_slug(settings)}-{digest[:12]}-v0"


def _slug(settings: Mapping[str, Any]) -> str:
    plain = "_".join(f"{key}-{_text(settings[key])}" for key in sorted(settings)) or "default"
    slug = _allowed(plain)
    if slug != plain or len(slug) > 80:
        slug = f"{slug[:60]}-{hashlib.sha256(plain.encode()).hexdigest()[:8]}"
    return slug


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), sort_keys=True, default=str)


def _allowed(text: str) -> str:
    return re.sub(r"[^-\w]", "_", text)
