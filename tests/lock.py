"""Adds the hashes of all their files to the versions in ``requirements.lock``: ``make lock``, which needs ``uv``.

PyTorch has a file of its own, ``requirements-torch.lock``, without hashes: which build is installed depends on the
machine and its package index.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
OLDEST = "3.11.5"  # the first Python for which every version here has a file


def main() -> int:
    """Looks the hashes up and rewrites the lock, with its first comments.

    Returns:
        the exit code.
    """
    if shutil.which("uv") is None:
        sys.stderr.write("error: uv: found none on the path, expected it: pip install uv\n")
        return 2
    lines = LOCK.read_text(encoding="utf-8").splitlines()
    pins = [match[0] for line in lines if (match := re.match(r"[\w.-]+==[\w.]+", line))]
    with tempfile.TemporaryDirectory() as folder:
        asked, found = Path(folder) / "asked.txt", Path(folder) / "found.txt"
        asked.write_text("\n".join(pins), encoding="utf-8")
        options = ["--quiet", "--no-deps", "--universal", "--generate-hashes", "--no-header", "--no-annotate"]
        command = ["uv", "pip", "compile", *options, "--python-version", OLDEST, str(asked), "-o", str(found)]
        subprocess.run(command, check=True)
        hashes = dict(entry.split(" \\\n", 1) for entry in re.split(r"\n(?=\S)", found.read_text(encoding="utf-8")))
    comments = [line for line in lines if line.startswith("#")]
    entries = [f"{pin} \\\n{hashes[_normalised(pin)].rstrip()}" for pin in pins]
    LOCK.write_text("\n".join([*comments, *entries]) + "\n", encoding="utf-8")
    return 0


def _normalised(pin: str) -> str:
    name, version = pin.split("==")
    return f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}"


if __name__ == "__main__":
    raise SystemExit(main())
