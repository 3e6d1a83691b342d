"""``evaluation.changed`` from the command line to the report of a study."""

from __future__ import annotations

import csv
import json

import pytest

FIT = ("fit", "--config", "tiny.yaml", "--run_dir", "run")
WORLDS = '{"same": {}, "fewer pays": {"convention_payoff": [0.5, 0.5]}}'
STUDY = """\
seeds: 2
options: {trainer.callbacks: [], evaluation.changed: {half: {convention_payoff: [0.5, 0.5]}}}
tasks: {game: {config: tiny.yaml}}
datasets: {unfavourable: {}}
methods: {MOMA-PPO: {}}
"""


def test_a_run_is_tested_in_changed_worlds(momalit, tmp_path):
    assert momalit(*FIT, "--evaluation.changed", WORLDS).code == 0
    results = json.loads((tmp_path / "run/results.json").read_text())
    changed = results["changed"]
    assert changed["same"] == {"return": results["return_last"], "interval": results["return_last_interval"]}
    assert changed["fewer pays"]["return"] == pytest.approx(results["return_last"] / 2)
    page = (tmp_path / "run/report.html").read_text()
    assert "last checkpoint, fewer pays" in page


def test_so_is_a_finished_run(momalit, tmp_path):
    assert momalit(*FIT).code == 0
    assert json.loads((tmp_path / "run/results.json").read_text())["changed"] == {}
    assert momalit("test", "--run_dir", "run", "--evaluation.changed", WORLDS).code == 0
    (file,) = (tmp_path / "run").glob("test*.json")
    found = json.loads(file.read_text())
    found = found.get("metrics", found)
    assert found["test/return in same"] == found["test/return"]
    assert found["test/return in fewer pays"] == pytest.approx(found["test/return"] / 2)


@pytest.mark.parametrize(
    ("worlds", "message"),
    [
        ('{"odd": {"pay": 2}}', "evaluation.changed.odd: env.pay: not a setting of icg"),
        ('{"odd": {"n_agents": 3}}', "evaluation.changed.odd: env icg: found agents ('agent_0', 'agent_1', 'agent_2')"),
        ('{"odd": {"n_actions": 3}}', "evaluation.changed.odd: its states do not fit the team"),
        ('{"odd": 2}', "evaluation.changed"),
        ("2", "evaluation.changed"),
    ],
)
def test_a_mistake_is_one_line_before_the_run_begins(worlds, message, momalit, tmp_path):
    outcome = momalit(*FIT, "--evaluation.changed", worlds)
    assert outcome.code == 2
    *_, last = outcome.stderr.splitlines()  # the dataset may have been collected before
    assert last.startswith("error: ")
    assert message in last
    assert not (tmp_path / "run").exists()


def test_a_study_compares_methods_there(momalit, tmp_path):
    (tmp_path / "study.yaml").write_text(STUDY)
    assert momalit("study", "study.yaml", "--output", "study", "--jobs", "1").code == 0
    with (tmp_path / "study/changed.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["seed"], row["world"]) for row in rows] == [("MOMA-PPO", s, "half") for s in "01"]
    assert momalit("report", "study", "--output", "page").code == 0
    assert "Mean return in changed worlds" in (tmp_path / "page/report.md").read_text()
    assert (tmp_path / "page/figures/changed.svg").is_file()
    assert (tmp_path / "page/changed.csv").is_file()
