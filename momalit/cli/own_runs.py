"""Which configurations in run directories may name code: those that this user's own commands wrote.

A run directory has the configuration of its run, which may name classes and functions of any module. Commands such as
``fit --run_dir`` read it, so a directory from a stranger could run any code. The digests of the configurations that a
user's commands wrote are in ``$MOMALIT_HOME``; any other may name only what comes with momalit, Lightning and PyTorch.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from datamodules.names import home
from momalit.core.errors import UserError
from momalit.core.team import TeamSpec

logger = logging.getLogger(__name__)

SAFE = ("momalit", "datamodules", "callbacks", "lightning", "torch", "torchmetrics")
PATHS = ("world_model", "warm_start", "ckpt_path", "default_root_dir", "dirpath")
IMPORT_PATH = re.compile(r"([A-Za-z_]\w*)(\.[A-Za-z_]\w*)*(:[A-Za-z_]\w*)?")
LIST = "own_runs.txt"


def remember(config: Path) -> None:
    """Notes that a command of this user wrote a configuration."""
    path = home() / LIST
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if _digest(config) not in _known():
            with path.open("a", encoding="utf-8") as file:
                file.write(f"{_digest(config)}\n")
    except OSError as error:
        logger.warning("%s cannot be written (%s): resume with --config %s", path, error.strerror, config)


def require_own(config: Path) -> None:
    """Checks a run directory's configuration before it is used.

    Raises:
        UserError: it names code, and no command of this user wrote it.
    """
    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{config}: cannot be read as YAML ({' '.join(str(error).split())})") from error
    for key, value in _code(content):
        if _digest(config) not in _known():
            raise UserError(
                f"{config}: {key} names {value}, which is code, and none of your commands wrote this file; look at it,"
                f" and if you trust it, give it as --config {config}"
            )


def require_named_env(config: Path, spec: TeamSpec) -> None:
    """Checks the environment that a checkpoint names before it is made.

    Args:
        config: the configuration of the checkpoint's run.
        spec: the checkpoint's team.

    Raises:
        UserError: the environment is not built in, and the configuration does not name it, or see ``require_own``.
    """
    from momalit.envs.factory import TASKS  # takes a second

    name = (spec.env or {}).get("name")
    if name is None or name in TASKS:
        return
    require_own(config)
    texts = _texts(yaml.safe_load(config.read_text(encoding="utf-8")).get("data"))
    if name not in texts and f"{name}/random" not in texts:
        raise UserError(
            f"{config.parent}: a checkpoint names the environment {name}, which is code, but {config} does not"
        )


def _texts(content: Any) -> set[str]:
    """All texts in a configuration."""
    if isinstance(content, dict):
        return set().union(*map(_texts, content.values()))
    if isinstance(content, list):
        return set().union(*map(_texts, content))
    return {content} if isinstance(content, str) else set()


def _code(content: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yields the keys and values that could be imported from elsewhere than ``SAFE``."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield from _code(value, f"{key}.{name}" if key else str(name))
    elif isinstance(content, list):
        for value in content:
            yield from _code(value, key)
    elif isinstance(content, str) and (setting := key.rpartition(".")[2]) not in PATHS:
        is_dataset = setting == "dataset"  # a path, or module:callable/random
        named = content.rpartition("/")[0] if is_dataset else content
        match = IMPORT_PATH.fullmatch(named)
        if match is None or match[1] in SAFE:
            return
        if match[3] or (not is_dataset and (key.endswith("class_path") or (match[2] and _exists(match[1])))):
            yield key, named


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _digest(config: Path) -> str:
    return hashlib.sha256(config.read_bytes()).hexdigest()


def _known() -> set[str]:
    try:
        return set((home() / LIST).read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError):
        return set()
