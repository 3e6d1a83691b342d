"""A team with agents of both kinds: recorded, inspected, trained, tested and exported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from momalit.policies.run_team import Team

NAME = "tests.envs.crane:Crane"


def test_a_team_trains_plays_and_is_exported(momalit, tmp_path: Path) -> None:
    arguments = ("--policy", "tests.envs.crane:expert", "--transitions", "300", "--output", "data")
    assert momalit("collect", NAME, *arguments).code == 0
    assert momalit("inspect", "data", "--output", "page.html").code == 0
    assert "3 choices" in (tmp_path / "page.html").read_text()
    fit = ("fit", "--config", "tiny.yaml", "--run_dir", "run", "--data.dataset", "data", "--data.transitions", "null")
    outcome = momalit(*fit, "--data.env.name", NAME)
    assert outcome.code == 0, outcome.stderr
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["return_last"] is not None
    assert results["estimate_last"] is not None
    assert momalit("export", "run", "--output", "team").code == 0
    team = Team(tmp_path / "team")
    team.reset()
    actions = team.act({"signaller": np.zeros(1, np.float32), "hook": np.zeros(2, np.float32)}, {})
    assert actions["signaller"] in (0, 1, 2)
    assert actions["hook"].shape == (1,)
