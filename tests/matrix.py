"""Runs the tests where numbers are rounded otherwise: ``make test-matrix``.

Other instruction sets, another precision of matrix products and two threads take sums in another order. Every setting
must pass. With PYTHONS="python3.12 python3.13", the tests also run in new environments of those interpreters.
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


def main() -> int:
    """Runs the settings one after another and prints a table.

    Returns:
        the exit code: 1 if a test failed.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="run the settings whose name contains this")
    parser.add_argument("--pythons", default="", help="other interpreters, separated by spaces")
    parser.add_argument("tests", nargs="*", default=["tests"], help="what pytest runs (default: all fast tests)")
    options = parser.parse_args()
    table = Table("setting", "outcome", "minutes")
    failed = False
    for name, variables in SETTINGS.items():
        if options.only in name:
            failed |= _run(table, name, sys.executable, variables, options.tests)
    for interpreter in options.pythons.split():
        with tempfile.TemporaryDirectory() as folder:
            failed |= _run(table, interpreter, _environment(interpreter, Path(folder)), {}, options.tests)
    Console().print(table)
    return int(failed)


def _run(table: Table, name: str, python: str, variables: dict[str, str], tests: list[str]) -> bool:
    """Runs the tests and adds a row. Returns whether one failed."""
    sys.stdout.write(f"== {name}\n")
    started = time.monotonic()
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **variables}, stdout=subprocess.PIPE, text=True, check=False
    )
    lines = done.stdout.strip().splitlines() or ["no output"]
    sys.stdout.write("".join(f"{line}\n" for line in lines if line.startswith(("FAILED", "ERROR"))) + lines[-1] + "\n")
    table.add_row(name, lines[-1].strip("= "), f"{(time.monotonic() - started) / 60:.0f}")
    return done.returncode != 0


def _environment(interpreter: str, folder: Path) -> str:
    """Installs the locked versions for another interpreter. Returns its path."""
    if shutil.which(interpreter) is None:
        raise SystemExit(f"error: PYTHONS: found no {interpreter}, expected interpreters on the path")
    subprocess.run([interpreter, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "--requirement", ROOT / "requirements.lock"], check=True)
    subprocess.run([*install, "--no-deps", "--no-build-isolation", "--editable", ROOT], check=True)
    return str(python)


if __name__ == "__main__":
    raise SystemExit(main())
