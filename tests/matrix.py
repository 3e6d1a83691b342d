"""Runs the tests where numbers are rounded otherwise: ``make test-matrix``.

Other instruction sets, another precision of matrix products and two threads take sums in another order. Every setting
must pass. With PYTHONS="python3.12 python3.13", the tests also run with the locked versions on those interpreters, and
with VERSIONS="lowest highest" with the oldest and the newest versions that pyproject.toml allows (this needs ``uv``).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = {
    "as shipped": {},
    "two threads": {"MOMALIT_TEST_THREADS": "2", "OMP_NUM_THREADS": "2"},
    "PyTorch without vector instructions": {"ATEN_CPU_CAPABILITY": "default"},
    "PyTorch with AVX2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "oneDNN with AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "oneDNN with AVX-512 without bf16": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    "oneDNN may round to bf16": {"ONEDNN_DEFAULT_FPMATH_MODE": "BF16"},
}
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
    parser.add_argument("tests", nargs="*", default=["tests"], help="what pytest runs (default: all fast tests)")
    options = parser.parse_args()
    for name in options.versions.split():
        if name not in RESOLUTIONS:
            parser.error(f"--versions: found {name}, expected {' or '.join(RESOLUTIONS)}")
    table = Table("setting", "outcome", "minutes")
    failed = False
    for name, variables in SETTINGS.items():
        if options.only != "none" and (options.only or "") in name:
            failed |= _run(table, name, sys.executable, variables, options.tests)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.environments or Path(temporary)
        for interpreter in options.pythons.split():
            python = _environment(folder / Path(interpreter).name, interpreter)
            failed |= _run(table, interpreter, python, {}, options.tests)
        for versions in options.versions.split():
            python = _environment(folder / versions, sys.executable, RESOLUTIONS[versions])
            tests = ["-W", "default", *options.tests]  # an old version may warn of a new one
            failed |= _run(table, f"{versions} versions", python, {}, tests)
    Console().print(table)
    return int(failed)


def _run(table: Table, name: str, python: str, variables: dict[str, str], tests: list[str]) -> bool:
    """Runs the tests and adds a row. Returns whether one failed."""
    sys.stdout.write(f"== {name}\n")
    started = time.monotonic()
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "auto", "--dist", "loadscope", *tests]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **variables}, stdout=subprocess.PIPE, text=True, check=False
    )
    lines = done.stdout.strip().splitlines() or ["no output"]
    sys.stdout.write("".join(f"{line}\n" for line in lines if line.startswith(("FAILED", "ERROR"))) + lines[-1] + "\n")
    table.add_row(name, lines[-1].strip("= "), f"{(time.monotonic() - started) / 60:.0f}")
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
