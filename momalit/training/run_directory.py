"""Run directories: where they are, what they record, and which may be written to."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from momalit.core.errors import UserError

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
INHERITED = "MOMALIT_RUN_DIR"  # tells the processes that Lightning starts which directory the first one chose


@dataclass(frozen=True)
class RunDirectory:
    """One run's directory; making the object touches nothing.

    It holds ``config.yaml``, ``run.json``, ``metrics.csv``, ``tensorboard/``, ``checkpoints/{last,best}.ckpt``,
    ``results.json``, and ``world_model/`` and ``warm_start/`` with the same of the stages before.

    Args:
        path: the directory.
    """

    path: Path

    @classmethod
    def choose(cls, given: str | None, name: str, seed: int | None) -> RunDirectory:
        """The directory that was asked for, else a new ``runs/<name>/<time>-<seed>`` where you stand.

        Raises:
            UserError: several processes were started from outside, which cannot agree on a new name.
        """
        if given is not None:
            return cls(Path(given).expanduser())
        if INHERITED in os.environ:
            return cls(Path(os.environ[INHERITED]))
        if started_from_outside():
            raise UserError("run_dir: found none, expected one for processes started from outside (--run_dir DIR)")
        stem = f"{datetime.now():%Y%m%d-%H%M%S}-{'unseeded' if seed is None else seed}"
        path = Path("runs") / name / stem
        for number in range(2, 1000):
            if not path.exists():
                break
            path = path.with_name(f"{stem}-{number}")
        return cls(path)

    @classmethod
    def around(cls, checkpoint: str | Path) -> RunDirectory | None:
        """The run that a checkpoint belongs to, if it lies in one."""
        directory = Path(checkpoint).resolve().parent.parent
        return cls(directory) if (directory / "run.json").is_file() else None

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def checkpoint(self, which: str) -> Path:
        """The file of ``last`` or ``best``."""
        return self.checkpoints / f"{which}.ckpt"

    @property
    def record(self) -> dict[str, Any]:
        """What ``run.json`` says; empty if there is none."""
        try:
            return dict(json.loads((self.path / "run.json").read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return {}

    def require_free(self) -> None:
        """Refuses a directory whose run would be mixed with a new one.

        Raises:
            UserError: another run's checkpoints are there.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"run_dir: {self.path} is a file, expected a directory")
        if any(self.path.glob("**/checkpoints/*.ckpt")):
            state = self.record.get("status", "unfinished")
            raise UserError(
                f"run_dir: {self.path} holds another run ({state}); continue it with --ckpt_path last, or name another"
            )

    def begin(self, record: Mapping[str, Any], config: str) -> None:
        """Makes the directory and writes ``run.json`` and ``config.yaml``.

        Raises:
            UserError: it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_text(self.config, config)
            started = datetime.now(UTC).isoformat(timespec="seconds")
            self.update(**{**record, "versions": versions(), "started": started, "status": "running"})
        except OSError as error:
            raise UserError(f"run_dir: {self.path} cannot be written ({error.strerror})") from error

    def update(self, **entries: Any) -> None:
        """Adds to ``run.json``, or changes it."""
        write_json(self.path / "run.json", {**self.record, **entries})


def started_from_outside() -> bool:
    """Whether ``torchrun`` or SLURM's ``srun`` started this process as one of several."""
    inside_srun = os.environ.get("SLURM_JOB_NAME") not in (None, "bash", "interactive")
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 or (inside_srun and int(os.environ.get("SLURM_NTASKS", "1")) > 1)


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    handle, partial = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(partial, 0o644)  # mkstemp makes files private
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Mapping[str, Any] | Sequence[Any]) -> None:
    """Writes a JSON file whole or not at all."""
    write_text(path, json.dumps(content, indent=2, default=str) + "\n")


def versions() -> dict[str, str]:
    """Versions of what a run's numbers depend on."""
    return {"momalit": library_version(), **versions_of(PACKAGES)}


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Versions of Python and of ``packages``, ``absent`` where one is not installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def library_version() -> str:
    """The installed version, or ``unknown`` in a checkout that was never installed."""
    try:
        return version("momalit")
    except PackageNotFoundError:
        return "unknown"
