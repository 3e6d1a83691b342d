"""A team whose agents leave one after the other: recorded, trained, tested and exported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NAME = "tests.envs.rescue:Rescue"


@pytest.mark.parametrize("discrete", ["true", "false"])
def test_a_team_trains_and_plays(discrete: str, momalit, tmp_path: Path) -> None:
    arguments = ("--env.discrete", discrete, "--transitions", "300", "--output", "data")
    assert momalit("collect", f"{NAME}/random", *arguments).code == 0
    fit = ("fit", "--config", "tiny.yaml", "--run_dir", "run", "--data.dataset", "data", "--data.transitions", "null")
    outcome = momalit(*fit, "--data.env.name", NAME, "--data.env.discrete", discrete)
    assert outcome.code == 0, outcome.stderr
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert -12 <= results["return_last"] <= 0
    assert results["estimate_last"] is not None
    assert momalit("export", "run", "--output", "team", "--formats", "torch").code == 0
