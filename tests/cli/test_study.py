"""The commands ``study`` and ``cross-play`` with real runs, from the study's file to the tables of results."""

import csv
import json
from pathlib import Path

import pytest
import yaml

STUDY = """\
title: Tiny
config: tiny.yaml
seeds: 2
cross_play: [MAIQL]
tasks: {icg: }
datasets: {unfavourable: {options: {data.dataset: icg/unfavourable}}}
methods:
  MOMA-PPO: {options: {trainer.max_epochs: 1}}
  MAIQL:
    config: baselines/maiql.yaml
    options: {trainer.max_epochs: 2, model.steps_per_epoch: 5, trainer.check_val_every_n_epoch: 1, model.width: 8}
"""


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_study_runs_resumes_and_writes_results(momalit, tmp_path: Path):
    (tmp_path / "study.yaml").write_text(STUDY)
    plan = momalit("study", "study.yaml", "--output", "here", "--dry_run")
    assert plan.code == 0
    assert "0 of 2" in plan.stderr
    assert not (tmp_path / "here").exists()
    first = momalit("study", "study.yaml", "--output", "here", "--jobs", "2")
    assert first.code == 0, first.stderr
    here = tmp_path / "here"
    rows = read_table(here / "results.csv")
    assert [(row["method"], row["seed"]) for row in rows] == [(m, s) for m in ("MOMA-PPO", "MAIQL") for s in "01"]
    assert all(0 <= float(row["return_last"]) <= 10 and row["dataset"] == "unfavourable" for row in rows)
    assert [row["gradient_steps"] for row in rows[2:]] == ["10", "10"]
    records = [json.loads(line) for line in (here / "results.jsonl").read_text().splitlines()]
    assert [record["return_last"] for record in records] == [float(row["return_last"]) for row in rows]
    assert records[0]["versions"]["torch"] == rows[0]["torch"]
    points = [row for row in read_table(here / "curves.csv") if row["method"] == "MAIQL"]
    assert [(row["seed"], row["epoch"]) for row in points] == [("0", "0"), ("0", "1"), ("1", "0"), ("1", "1")]
    teams = read_table(here / "cross_play.csv")
    assert [(row["seeds"], row["kind"]) for row in teams] == [
        ("0+0", "self"), ("1+1", "self"), ("0+1", "cross"), ("1+0", "cross"),
    ]  # fmt: skip
    # The table has the returns of the runs.
    returns = {row["seed"]: float(row["return_last"]) for row in rows if row["method"] == "MAIQL"}
    assert (
        float(json.loads((here / "runs/icg-unfavourable-maiql/seed-0/results.json").read_text())["return_last"])
        == (returns["0"])
    )
    assert yaml.safe_load((here / "study.yaml").read_text())["title"] == "Tiny"

    (here / "runs/icg-unfavourable-maiql/seed-1/results.json").unlink()
    again = momalit("study", "study.yaml", "--output", "here", "--jobs", "1")
    assert again.code == 0
    assert "3 of 4 jobs are already done" in again.stderr
    assert read_table(here / "results.csv")[:3] == rows[:3]

    changed = STUDY.replace("model.steps_per_epoch: 5", "model.steps_per_epoch: 6")
    (tmp_path / "study.yaml").write_text(changed)
    rejected = momalit("study", "study.yaml", "--output", "here")
    assert rejected.code == 2
    assert "found a run with --model.steps_per_epoch=5, expected --model.steps_per_epoch=6" in rejected.stderr

    runs = [str(here / "runs/icg-unfavourable-maiql" / f"seed-{seed}") for seed in (0, 1)]
    assert momalit("cross-play", *runs, "--checkpoint", "best", "--episodes", "2").code == 0
    assert momalit("cross-play", *runs, "--episodes", "3", "--output", "played.json").code == 0
    played = {team["seeds"]: team["return"] for team in json.loads((tmp_path / "played.json").read_text())["teams"]}
    # Same-seed teams have the returns of their runs.
    assert {seed: played[f"{seed}+{seed}"] for seed in "01"} == returns
    other = str(here / "runs/icg-unfavourable-moma_ppo/seed-1")
    assert momalit("cross-play", runs[0], other, "--episodes", "2").code == 0  # teams of two methods
    same = momalit("cross-play", runs[0], str(here / "runs/icg-unfavourable-moma_ppo/seed-0"))
    assert same.code == 2
    assert "found seeds 0, 0, expected runs of different seeds" in same.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("study",), "error: study: missing, a value is required"),
        (("study", "agreement_ig.yaml"), "nearest: studies/agreement_icg.yaml"),
        (("study", "studies/agreement_icg.yaml", "--jobs", "0"), "--jobs: found 0, expected at least 1"),
        (
            ("study", "studies/agreement_icg.yaml", "--engine", "slurm"),
            "--engine: found 'slurm', expected local or ray",
        ),
        (("study", "icg.yaml"), "icg.yaml: seed_everything: no such key"),
        (("cross-play", "runs/a"), "cross-play: found 1 run, expected at least two"),
        (("cross-play", "a", "b"), "found no finished run with checkpoints/last.ckpt in a"),
        (("cross-play", "a", "b", "--checkpoint", "first"), "--checkpoint: found 'first', expected last or best"),
        (("cross-play", "a", "b", "--episodes", "0"), "--episodes: found 0, expected at least 1"),
    ],
)
def test_error_messages_have_one_line(momalit, arguments, message):
    outcome = momalit(*arguments)
    assert outcome.code == 2
    assert message in outcome.stderr
    assert outcome.stderr.count("\n") == 1


def test_study_reports_the_failed_run(momalit, tmp_path: Path):
    (tmp_path / "study.yaml").write_text(
        "config: tiny.yaml\ntasks: {icg: }\nmethods: {MOMA-PPO: {options: {model.horizn: 3}}}\n"
    )
    outcome = momalit("study", "study.yaml")
    assert outcome.code == 2
    assert "error: model.horizn: momalit.MOMAPPOModule has no such setting; did you mean horizon?" in outcome.stderr
    assert "1 of the study's jobs failed, the first in" in outcome.stderr
