"""Runs every command of the README and the documentation, page by page, with little data and few epochs."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from momalit.cli import main
from momalit.studies.grid import read_study

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md"))]
PROGRAMS = (["python", "main.py"], ["python3", "main.py"], ["momalit"])
TESTED_ELSEWHERE = {"docs/many-machines.md"}  # tests/cli/test_many_machines.py starts its processes


def commands(page: str) -> list[list[str]]:
    """The commands in a page's shell blocks, split into arguments, with continued lines joined and comments removed."""
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:bash|sh|shell|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [arguments for line in lines if (arguments := shlex.split(line.removeprefix("$ "), comments=True))]


def quick(arguments: list[str]) -> list[str]:
    """Makes a command small. A command that takes its configuration from a run is unchanged."""
    if arguments[0] == "study":
        return [arguments[0], small_study(arguments[1]), *arguments[2:]]
    if arguments[0] == "collect" and "--transitions" in arguments:
        arguments = [*arguments, "--transitions", "200"]
    if arguments[0] != "fit" or not any(argument.startswith("--config") for argument in arguments):
        return arguments
    small = ["--config", "overlays/quick.yaml", "--trainer.max_epochs", "2"]
    collects = not any("mappo/" in argument or argument.startswith("--data.dataset") for argument in arguments)
    if any(argument.startswith("baselines/") and argument != "baselines/bc.yaml" for argument in arguments):
        small += ["--model.steps_per_epoch", "10"]
    return [*arguments, *small, *(["--data.transitions", "1000"] if collects else [])]


def small_study(name: str) -> str:
    """Writes a study with the same name and runs, but with the configuration of a quick trial, and returns its path."""
    content = yaml.safe_load((ROOT / "configs" / name).read_text(encoding="utf-8"))
    content.update(seeds=2, config="overlays/quick.yaml")
    for method in content["methods"].values():
        method["options"] = {**method.get("options", {}), "trainer.max_epochs": 1, "data.transitions": 1000}
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return name


@pytest.mark.parametrize("page", [page for page in PAGES if page not in TESTED_ELSEWHERE])
def test_commands_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in commands(page):
        program = next((program for program in PROGRAMS if arguments[: len(program)] == program), None)
        if program is not None:
            assert main(quick(arguments[len(program) :])) == 0, shlex.join(arguments)
        elif arguments[0] == "make":
            dry = [*arguments, "--dry-run"]
            done = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 0, f"{shlex.join(arguments)}: {done.stderr}"
        else:
            assert (ROOT / arguments[0]).is_file(), f"{page}: nothing tests {shlex.join(arguments)}"


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_are_included_from_tested_files(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for block in re.findall(r"^```(?:python|py)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        included = re.fullmatch(r'--8<-- "(examples/\w+\.py)"\n', block)
        assert included, f"{page}: expected a file of examples/, found {block[:60]!r}"
        assert (ROOT / included[1]).is_file()


@pytest.mark.parametrize("page", PAGES)
def test_rows_of_a_table_have_as_many_cells(page: str) -> None:
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for table in re.findall(r"(?:^ *\|.*\n)+", text, re.MULTILINE):
        header, *rows = ([*re.finditer(r"(?<!\\)\|", row)] for row in table.splitlines())
        for row in rows:
            assert len(row) == len(header), f"{page}: {row[0].string.strip()}"


def test_the_study_file_is_valid(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "comparing-methods.md").read_text(encoding="utf-8")
    block = re.search(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert block
    (tmp_path / "mine.yaml").write_text(block[1], encoding="utf-8")
    study = read_study(tmp_path / "mine.yaml", yaml.safe_load(block[1]))
    assert len(study.cells) == 5 * (2 * 2 - 1)


@pytest.mark.filterwarnings("ignore:`eval_env` is set to None:UserWarning")  # Minari, which takes Gymnasium's only
@pytest.mark.filterwarnings("ignore:env_spec is None:UserWarning")
@pytest.mark.parametrize("name", sorted(file.name for file in (ROOT / "examples").glob("*.py")))
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.syspath_prepend(ROOT / "examples")  # as for a script, whose directory is searched first
    monkeypatch.setattr(sys, "argv", [name])
    try:
        runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    except SystemExit as stop:
        assert stop.code == 0  # noqa: PT017
