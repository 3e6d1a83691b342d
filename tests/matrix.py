"""Runs the tests where numbers are rounded otherwise: ``make test-matrix``.

Other instruction sets, another precision of matrix products and two threads take sums in another order. Every setting
must pass; one that this processor computes as shipped is left out. With PYTHONS="python3.12 python3.13", the tests also
run with the locked versions on those interpreters, and with VERSIONS="lowest highest" with the oldest and the newest
versions that pyproject.toml allows (this needs ``uv``). TOGETHER=1 pairs settings with environments, so that each is
covered by as few runs of the tests as possible; where one fails, run its two parts alone.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = {
    "as shipped": {},
    "two threads": {"MOMALIT_TEST_THREADS": "2", "OMP_NUM_THREADS": "2"},
    "PyTorch without vector instructions": {"ATEN_CPU_CAPABILITY": "default"},
    "PyTorch with AVX2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "oneDNN with SSE4.1": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    "oneDNN with AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "oneDNN with AVX-512 without bf16": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    "oneDNN may round to bf16": {"ONEDNN_DEFAULT_FPMATH_MODE": "BF16"},
}
NEED_AVX512 = ("PyTorch with AVX2", "oneDNN with AVX2", "oneDNN with AVX-512 without bf16")  # else no other kernels
LOCKED = "locked versions"
RESOLUTIONS = {"lowest": "lowest-direct", "highest": "highest"}


def main() -> int:
    """Runs the settings one after another and prints a table.

    Returns:
        the exit code: 1 if a test failed.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", help="run the settings whose name contains this; none for no setting")
    parser.add_argument("--pythons", default="", help="other interpreters, separated by spaces")
    parser.add_argument("--versions", default="", help="lowest, highest or both: which allowed versions to install")
    parser.add_argument("--environments", type=Path, help="folder that keeps the new environments for the next time")
    parser.add_argument("--together", action="store_true", help="pair settings with the other environments")
    parser.add_argument("tests", nargs="*", default=["tests"], help="what pytest runs (default: all fast tests)")
    options = parser.parse_args()
    for name in options.versions.split():
        if name not in RESOLUTIONS:
            parser.error(f"--versions: found {name}, expected {' or '.join(RESOLUTIONS)}")
    wanted = [name for name in SETTINGS if options.only != "none" and (options.only or "") in name]
    vectors = torch.backends.cpu.get_cpu_capability()
    settings = [name for name in wanted if "AVX512" in vectors or name not in NEED_AVX512]
    for name in (name for name in wanted if name not in settings):
        sys.stdout.write(f"left out: {name} (this processor has {vectors} at most)\n")
    table = Table("environment", "setting", "outcome", "minutes")
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.environments or Path(temporary)
        for environment, setting in _runs(
            settings, options.pythons.split(), options.versions.split(), options.together
        ):
            tests = options.tests
            if environment in RESOLUTIONS:
                python = _environment(folder / environment, sys.executable, RESOLUTIONS[environment])
                tests = ["-W", "default", *tests]  # an old version may warn of a new one
            elif environment == LOCKED:
                python = sys.executable
            else:
                python = _environment(folder / Path(environment).name, environment)
            failed |= _run(table, environment, setting, python, tests)
    Console().print(table)
    return int(failed)


def _runs(
    settings: Sequence[str], pythons: Sequence[str], versions: Sequence[str], together: bool
) -> list[tuple[str, str]]:
    """Pairs of environment and setting that cover all of both.

    Args:
        settings: names of settings.
        pythons: other interpreters.
        versions: keys of ``RESOLUTIONS``.
        together: whether every run varies both.
    """
    others = [*pythons, *versions]
    if not together:
        return [*((LOCKED, setting) for setting in settings), *((other, "as shipped") for other in others)]
    environments = others or [LOCKED]
    settings = [setting for setting in settings if setting != "as shipped"] or ["as shipped"]
    number = max(len(environments), len(settings))
    return [(environments[i % len(environments)], settings[i % len(settings)]) for i in range(number)]


def _run(table: Table, environment: str, setting: str, python: str, tests: list[str]) -> bool:
    """Runs the tests and adds a row. Returns whether one failed."""
    sys.stdout.write(f"== {environment}, {setting}\n")
    sys.stdout.flush()
    started = time.monotonic()
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "auto", "--dist", "loadscope", *tests]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **SETTINGS[setting]}, stdout=subprocess.PIPE, text=True, check=False
    )
    lines = done.stdout.strip().splitlines() or ["no output"]
    sys.stdout.write("".join(f"{line}\n" for line in lines if line.startswith(("FAILED", "ERROR"))) + lines[-1] + "\n")
    table.add_row(environment, setting, lines[-1].strip("= "), f"{(time.monotonic() - started) / 60:.0f}")
    return done.returncode != 0


def _environment(folder: Path, interpreter: str, resolution: str | None = None) -> str:
    """Makes an environment unless it is there.

    Args:
        folder: where.
        interpreter: its Python.
        resolution: which allowed versions ``uv`` takes; None for the locked ones.

    Returns:
        the path of its Python.
    """
    python = folder / "bin" / "python"
    if python.exists():
        return str(python)
    for name in (interpreter, *(["uv"] if resolution else [])):
        if shutil.which(name) is None:
            raise SystemExit(f"error: found no {name} on the path")
    subprocess.run([interpreter, "-m", "venv", folder], check=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if resolution:
        uv = ["uv", "pip", "install", "--quiet", "--python", python, "--resolution", resolution]
        subprocess.run([*uv, "--editable", f"{ROOT}[dev,mamujoco]"], check=True)
    else:
        subprocess.run([*pip, "--no-deps", "--require-hashes", "--requirement", ROOT / "requirements.lock"], check=True)
        subprocess.run([*pip, "--requirement", ROOT / "requirements-torch.lock"], check=True)
        subprocess.run([*pip, "--no-deps", "--no-build-isolation", "--editable", ROOT], check=True)
    return str(python)


if __name__ == "__main__":
    raise SystemExit(main())
