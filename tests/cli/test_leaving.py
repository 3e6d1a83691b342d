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
    real = ("estimate", "run", "--real", "2", "--episodes", "4")
    assert momalit(*real).code == 0
    by_name = ("fit", "--config", "tiny.yaml", "--run_dir", "named", "--data.dataset", f"{NAME}/random")
    assert momalit(*by_name, "--data.env.discrete", discrete, "--data.transitions", "300").code == 0
    assert momalit(real[0], "named", *real[2:]).code == 0
