"""Completion of commands and options in a real shell."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("shtab")
COMPLETE = """
source {script}
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
$(complete -p momalit | sed 's/.*-F \\([^ ]*\\).*/\\1/')
echo "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "momalit.bash"
    with path.open("w") as file:
        subprocess.run([sys.executable, "-m", "momalit", "completion", "bash"], stdout=file, check=True)
    return path


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("momalit insp", ["inspect"]),
        ("momalit fit --trainer.max_ep", ["--trainer.max_epochs"]),
        ("momalit fit --model.pess", ["--model.pessimism"]),
        ("momalit fit --model.cql", ["--model.cql_alpha"]),
        ("momalit fit --config ic", ["icg.yaml"]),
        ("momalit export --form", ["--formats"]),
        ("momalit test --run_dir mine/r", ["mine/run"]),
    ],
)
def test_bash_completes(words: str, expected: list[str], script: Path, tmp_path: Path) -> None:
    (tmp_path / "mine/run").mkdir(parents=True)
    command = COMPLETE.format(script=script, words=words)
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.split() == expected


def test_unknown_shell(momalit) -> None:
    outcome = momalit("completion", "basch")
    assert outcome.code == 2
    assert "completion: found 'basch', expected one of bash, zsh" in outcome.stderr
