"""Run directories: their paths, their records, and which of them may be written to."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from momalit.core.errors import UserError
from momalit.core.files import replacing

PACKAGES = (
    "lightning",
    "torch",
    "torchmetrics",
    "numpy",
    "jsonargparse",
    "gymnasium",
    "pettingzoo",
    "mujoco",
    "minari",
)
INHERITED = "MOMALIT_RUN_DIR"  # passes the directory chosen by rank 0 to the processes that Lightning starts


@dataclass(frozen=True)
class RunDirectory:
    """The directory of a run. Creating the object does not change the file system.

    The directory contains ``config.yaml``, ``run.json``, ``metrics.csv``, ``tensorboard/``,
    ``checkpoints/{last,best}.ckpt`` and ``results.json``. The subdirectories ``world_model/`` and ``warm_start/``
    contain the same files for the preceding stages.

    Args:
        path: the directory.
    """

    path: Path

    @classmethod
    def choose(cls, given: str | None, name: str, seed: int | None) -> RunDirectory:
        """Returns the directory ``given``, or else a new ``runs/<name>/<time>-<seed>`` in the working directory.

        Raises:
            UserError: no directory is given and an external launcher started several processes, which could not agree
                on a new name.
        """
        if given is not None:
            return cls(Path(given).expanduser())
        if INHERITED in os.environ:
            return cls(Path(os.environ[INHERITED]))
        if externally_launched():
            raise UserError("run_dir: found none, expected --run_dir DIR when torchrun or srun starts the processes")
        stem = f"{datetime.now():%Y%m%d-%H%M%S}-{'unseeded' if seed is None else seed}"
        path = Path("runs") / name / stem
        for number in range(2, 1000):
            if not path.exists():
                break
            path = path.with_name(f"{stem}-{number}")
        return cls(path)

    @classmethod
    def around(cls, checkpoint: str | Path) -> RunDirectory | None:
        """Returns the run directory that contains a checkpoint, or None if it is not in one."""
        directory = Path(checkpoint).resolve().parent.parent
        return cls(directory) if (directory / "run.json").is_file() else None

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def checkpoint(self, which: str) -> Path:
        """Returns the path of the checkpoint ``last`` or ``best``."""
        return self.checkpoints / f"{which}.ckpt"

    @property
    def record(self) -> dict[str, Any]:
        """The content of ``run.json``; empty if the file does not exist or cannot be read."""
        try:
            return dict(json.loads((self.path / "run.json").read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return {}

    def require_free(self) -> None:
        """Checks that the directory does not contain another run.

        Raises:
            UserError: the path is a file, or the directory contains checkpoints of another run.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"run_dir: {self.path} is a file, expected a directory")
        if any(self.path.glob("**/checkpoints/*.ckpt")):
            status = self.record.get("status", "unfinished")
            raise UserError(
                f"run_dir: {self.path} contains another run ({status}); continue it with --ckpt_path last, or choose"
                " another directory"
            )

    def begin(self, record: Mapping[str, Any], config: str) -> None:
        """Creates the directory and writes ``run.json`` and ``config.yaml``.

        Raises:
            UserError: the directory cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_text(self.config, config)
            started = datetime.now(UTC).isoformat(timespec="seconds")
            self.update(**{**record, "versions": versions(), "started": started, "status": "running"})
        except OSError as error:
            raise UserError(f"run_dir: {self.path} cannot be written ({error.strerror})") from error

    def update(self, **entries: Any) -> None:
        """Adds or replaces entries of ``run.json``."""
        write_json(self.path / "run.json", {**self.record, **entries})


def externally_launched() -> bool:
    """Returns whether ``torchrun`` or SLURM's ``srun`` started this process as one of several."""
    inside_srun = os.environ.get("SLURM_JOB_NAME") not in (None, "bash", "interactive")
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 or (inside_srun and int(os.environ.get("SLURM_NTASKS", "1")) > 1)


def write_text(path: Path, text: str) -> None:
    """Writes a file atomically."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any] | Sequence[Any]) -> None:
    """Writes a JSON file atomically."""
    write_text(path, json.dumps(content, indent=2, default=str) + "\n")


def versions() -> dict[str, str]:
    """Returns the versions of this library and of the packages that results depend on."""
    return {"momalit": library_version(), **versions_of(PACKAGES)}


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Returns the versions of Python and of ``packages``; ``absent`` if a package is not installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def library_version() -> str:
    """Returns the installed version of this library, or ``unknown`` if it is not installed."""
    try:
        return version("momalit")
    except PackageNotFoundError:
        return "unknown"
