"""Every command that the README shows is run, in its order and in one folder, with little data and few epochs."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from momalit.cli import main

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = (["python", "main.py"], ["python3", "main.py"], ["momalit"])


def commands() -> list[list[str]]:
    """The words of every command in the README's shell blocks; continued lines are joined, comments dropped."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:bash|sh|shell|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line.removeprefix("$ "), comments=True))]


def quick(words: list[str]) -> list[str]:
    """The same command, made small; a command that takes its configuration from a run stays as it is."""
    if words[0] == "collect" and "--transitions" in words:
        words = [*words, "--transitions", "200"]
    if words[0] != "fit" or not any(word.startswith("--config") for word in words):
        return words
    small = ["--config", "overlays/quick.yaml", "--trainer.max_epochs", "2"]
    makes_data = not any("mappo/" in word or word.startswith("--data.dataset") for word in words)
    if any(word.startswith("baselines/") and word != "baselines/bc.yaml" for word in words):
        small += ["--model.steps_per_epoch", "10"]
    return [*words, *small, *(["--data.transitions", "1000"] if makes_data else [])]


def test_the_commands_of_the_program_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = 0
    for words in commands():
        for program in PROGRAMS:
            if words[: len(program)] == program:
                assert main(quick(words[len(program) :])) == 0, shlex.join(words)
                ran += 1
    assert ran


def test_the_targets_of_make_exist() -> None:
    made = [words for words in commands() if words[0] == "make"]
    assert made
    for words in made:
        done = subprocess.run([*words, "--dry-run"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{shlex.join(words)}: {done.stderr}"
