"""The report of a small hand-made study: tables, page, figures and error messages."""

from html.parser import HTMLParser
from pathlib import Path

import pytest

from momalit.cli import main
from momalit.studies.figures import figures
from momalit.studies.load_results import read_results
from momalit.studies.tables import (
    claims_table,
    cross_play_table,
    group_table,
    improvement_table,
    pooled_table,
    reach_table,
    trend_tables,
)

RUNS = """\
study,task,dataset,setting,method,seed,return_last,return_best,imagined_last,normalized_last,distance,episodes,\
deterministic,return_data,return_random,return_expert,wall_clock_seconds,momalit,torch,extra
s,game,one,,MOMA-PPO,0,8,9,9,0.8,1.5,100,True,5,0,10,60,0.1,2.13,x
s,game,one,,MOMA-PPO,1,10,10,10,1.0,1.1,100,True,5,0,10,120,0.1,2.13,y
s,game,one,,BC,0,-1,2,,-0.1,1.0,100,True,5,0,10,30,0.1,2.13,
s,game,one,,BC,1,1,2,,0.1,1.0,100,True,5,0,10,30,0.1,2.13,
s,game,two,,MOMA-PPO,0,1000,1000,,0.5,,100,True,500,0,2000,60,0.1,2.13,
s,game,two,,BC,0,2000,2000,,1.0,,100,True,500,0,2000,60,0.1,2.13,
"""
CURVES = """\
task,dataset,setting,method,seed,epoch,step,return,imagined
game,one,,MOMA-PPO,0,4,9,3,4
game,one,,MOMA-PPO,0,9,19,8,9
game,one,,MOMA-PPO,1,4,9,5,6
game,one,,MOMA-PPO,1,9,19,10,9
game,one,,BC,0,0,9,-1,
"""
TEAMS = """\
task,dataset,setting,method,seeds,kind,return
game,one,,BC,0+0,self,-1
game,one,,BC,1+1,self,1
game,one,,BC,0+1,cross,-3
game,one,,BC,1+0,cross,-1
"""
STUDY = 'title: "Hand-made <b>"\ndescription: What it is.\nbudget: "Little."\n'


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "study"
    folder.mkdir()
    for name, text in (("results", RUNS), ("curves", CURVES), ("cross_play", TEAMS)):
        (folder / f"{name}.csv").write_text(text)
    (folder / "study.yaml").write_text(STUDY)
    return folder


def test_the_table_of_a_group_by_hand(study):
    table = group_table(read_results(study), ("game", "one", ""))
    assert table.header[:6] == ["method", "mean", "IQM", "95 % interval", "per seed", "best checkpoint"]
    assert table.header[6:] == ["estimate − real", "distance", "minutes"]
    assert table.rows[0] == [
        "MOMA-PPO", "9.00", "9.00", "8.00 to 10.00", "8.00, 10.00", "9.50", "+0.50", "1.30", "1.5",
    ]  # fmt: skip
    assert table.rows[1][:5] == ["BC", "0.00", "0.00", "−1.00 to 1.00", "−1.00, 1.00"]
    assert [row[:2] for row in table.rows[2:]] == [
        ["*random actions*", "0.00"], ["*mean of the data*", "5.00"], ["*expert*", "10.00"],
    ]  # fmt: skip
    assert table.best == [0]
    other = group_table(read_results(study), ("game", "two", ""))
    assert "distance" not in other.header
    assert other.best == [1]
    assert other.rows[1][1] == "2,000"


def test_the_other_tables_by_hand(study):
    results = read_results(study)
    pooled = pooled_table(results)
    assert [row[:2] for row in pooled.rows] == [["MOMA-PPO", f"{(0.8 + 1 + 0.5) / 3:.2f}"], ["BC", "0.33"]]
    assert improvement_table(results).rows[0][:3] == [
        "BC",
        "0.50",
        "0.50 to 0.50",
    ]  # higher in one group, lower in the other
    assert cross_play_table(results).rows == [["game, one", "BC", "0.00", "−2.00", "−3.00 to −1.00", "2"]]


def test_changed_worlds_by_hand(study):
    rows = ["game,one,,MOMA-PPO,0,heavy,6", "game,one,,MOMA-PPO,1,heavy,8", "game,one,,MOMA-PPO,0,weak,1"]
    (study / "changed.csv").write_text("\n".join(["task,dataset,setting,method,seed,world,return", *rows]) + "\n")
    results = read_results(study)
    (table,) = trend_tables(results)
    assert table.title == "Mean return in changed worlds: one"
    assert table.header == ["method", "unchanged", "heavy", "weak"]
    assert table.rows[0] == ["MOMA-PPO", "9.00 (8.00 to 10.00)", "7.00 (6.00 to 8.00)", "1.00"]
    assert [row[0] for row in table.rows[1:]] == ["*random actions*", "*mean of the data*", "*expert*"]
    (figure,) = (figure for name, _, figure in figures(results) if name == "changed")
    assert "MOMA-PPO" in figure
    assert "mean of the data" not in figure  # known in one world only, where it would be a point


def test_trends_and_first_looks_by_hand(study):
    assert not list(trend_tables(read_results(study)))
    assert reach_table(read_results(study)) is None
    (study / "study.yaml").write_text(STUDY + "x_axis: dataset\nreach: 0.8\n")
    results = read_results(study)
    (table,) = trend_tables(results)
    assert table.header == ["method", "one", "two"]
    assert table.rows[0] == ["MOMA-PPO", "9.00 (8.00 to 10.00)", "1,000"]
    assert table.rows[1] == ["BC", "0.00 (−1.00 to 1.00)", "2,000"]
    assert ["*expert*", "10.00", "2,000"] in table.rows
    curves = (study / "curves.csv").read_text().splitlines()
    steps = ["rollout_steps", "100", "200", "150", "250", ""]
    (study / "curves.csv").write_text("".join(f"{row},{n}\n" for row, n in zip(curves, steps, strict=True)))
    assert reach_table(read_results(study)).rows[0][-1] == "225"
    reached = reach_table(results)
    assert reached.title == "First validation with 80% of the expert's score"
    assert reached.rows[:2] == [["game, one", "MOMA-PPO", "2 of 2", "20"], ["game, one", "BC", "0 of 2", ""]]
    assert "trend" in [name for name, _, _ in figures(results)]


def test_one_seed_gives_no_interval(study):
    (study / "results.csv").write_text("\n".join(line for line in RUNS.splitlines() if ",1," not in line) + "\n")
    results = read_results(study)
    assert "95 % interval" not in group_table(results, ("game", "one", "")).header
    assert improvement_table(results) is None
    assert main(["report", str(study)]) == 0
    assert "One seed gives no interval" in (study / "report.md").read_text()


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.loaded: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids += [given["id"]] if given.get("id") else []
        addresses = [given.get(name) or "" for name in ("src", "href", "xlink:href")]
        self.loaded += [address for address in addresses if address and not address.startswith(("#", "data:"))]


def test_the_report_is_complete_and_reproducible(study, tmp_path, capsys):
    assert main(["report", str(study), "--output", str(tmp_path / "out")]) == 0
    assert "Probability of improvement" in capsys.readouterr().err
    out = tmp_path / "out"
    text = (out / "report.md").read_text()
    assert text.startswith("# Hand-made <b>\n\nWhat it is.\n\nBudget of each run: Little.\n\n6 runs, seeds 0, 1.")
    assert "| **MOMA-PPO** | **9.00** |" in text
    figures = sorted(path.stem for path in (out / "figures").iterdir())
    assert figures == ["cross_play", "cross_play_seeds", "curves", "profile", "returns"]
    assert all(f"(figures/{name}.svg)" in text for name in figures)
    assert "too narrow" in text
    page = Page()
    page.feed((out / "report.html").read_text())
    assert page.loaded == []  # the page is self-contained
    assert len(page.ids) == len(set(page.ids))
    assert "Hand-made &lt;b&gt;" in (out / "report.html").read_text()
    for name in ("results.csv", "curves.csv", "cross_play.csv", "study.yaml"):
        assert (out / name).read_bytes() == (study / name).read_bytes()
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert main(["report", str(out)]) == 0
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(("expert", "drawn"), [("12", True), ("99999", False)])
def test_a_reference_far_from_the_runs_is_not_drawn(study, expert, drawn):
    runs = [line for line in RUNS.splitlines() if ",two," not in line]
    (study / "results.csv").write_text("\n".join(runs).replace(",0,10,", f",0,{expert},") + "\n")
    assert main(["report", str(study)]) == 0
    assert ("<!-- expert -->" in (study / "figures" / "returns.svg").read_text()) == drawn
    assert "| *expert* |" in (study / "report.md").read_text()


def test_only_results_csv_is_required(study, tmp_path):
    for name in ("curves.csv", "cross_play.csv", "study.yaml"):
        (study / name).unlink()
    assert main(["report", str(study), "--title", "Mine"]) == 0
    assert (study / "report.md").read_text().startswith("# Mine\n\n6 runs")
    assert sorted(path.stem for path in (study / "figures").iterdir()) == ["profile", "returns"]


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("results.csv", RUNS, "", "results.csv: column task is missing, found nothing"),
        ("results.csv", "return_best", "return_bst", "results.csv: column return_best is missing, found study, task"),
        ("results.csv", "MOMA-PPO,0,8,", "MOMA-PPO,0,eight,", "results.csv, row 2: return_last: found 'eight'"),
        ("results.csv", "MOMA-PPO,0,8,", "MOMA-PPO,0,,", "results.csv, row 2: return_last: found ''"),
        ("results.csv", "MOMA-PPO,1,10,", "MOMA-PPO,0,10,", "results.csv: rows 2 and 3 are the same run: MOMA-PPO"),
        ("results.csv", RUNS[RUNS.index("s,game") :], "", "results.csv: found no runs"),
        ("curves.csv", "epoch", "epok", "curves.csv: column epoch is missing"),
        ("study.yaml", STUDY, "a: [", "study.yaml: is not valid YAML"),
    ],
)  # fmt: skip
def test_invalid_files_give_a_one_line_error(study, capsys, name, old, new, message):
    path = study / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert main(["report", str(study)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (study / "report.md").exists()


def test_a_missing_study_gives_an_error(tmp_path, capsys):
    assert main(["report", str(tmp_path / "none")]) == 2
    assert "none/results.csv: no such file, expected a study's results (python main.py study FILE)" in (
        capsys.readouterr().err
    )


def test_claims_are_checked_by_hand(study):
    (study / "study.yaml").write_text(
        STUDY + "claims:\n"
        "  - {dataset: one, method: MOMA-PPO, mean: 9, every: 8, estimate_within: 0.125}\n"
        "  - {dataset: one, method: MOMA-PPO, mean: 9.1, every: 8.1, estimate_within: 0.12}\n"
        "  - {dataset: two, method: BC, mean: 1}\n"
        "  - {dataset: two, method: IQL, every: 1}\n"
    )
    table = claims_table(read_results(study))
    assert table.rows[0][:2] == ["one, MOMA-PPO", "9.00"]
    assert table.rows[0][2:] == ["9.00 (8.00 to 10.00)", "8.00", "8.00", "12%", "12%", "holds (2 seeds)"]
    assert [row[-1] for row in table.rows[1:]] == [
        "fails: mean, every run, estimate (2 seeds)", "holds (1 seed)", "not measured",
    ]  # fmt: skip


@pytest.mark.parametrize(("estimate", "cell", "holds"), [("1", "infinite", False), ("0", "0%", True)])
def test_an_estimate_of_a_real_return_of_zero(study, tmp_path, estimate, cell, holds):
    header = "task,dataset,method,seed,return_last,return_best,estimate_last"
    (study / "results.csv").write_text(f"{header}\ngame,one,BC,0,0,0,{estimate}\n")
    (study / "study.yaml").write_text(STUDY + "claims: [{method: BC, estimate_within: 0.1}]\n")
    assert main(["report", str(study), "--output", str(tmp_path / "out")]) == 0
    (row,) = claims_table(read_results(study)).rows
    assert row[-2] == cell
    assert row[-1].startswith("holds") == holds
    assert (tmp_path / "out" / "report.md").is_file()


def test_nothing_is_written_if_a_table_cannot_be_made(study, tmp_path, capsys):
    (study / "study.yaml").write_text(STUDY + "claims: 3\n")
    assert main(["report", str(study), "--output", str(tmp_path / "out")]) == 2
    assert "study.yaml: claims: found 3, expected a list of mappings" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_runs_without_an_environment_have_nothing_to_compare(study, capsys):
    header = "task,dataset,method,seed,return_last,return_best,estimate_last"
    (study / "results.csv").write_text(f"{header}\ngame,one,BC,0,,,1\ngame,one,BC,1,,,2\n")
    assert main(["report", str(study)]) == 2
    error = capsys.readouterr().err
    assert "results.csv: these runs have no real returns, because their data name no environment" in error
    assert "so there is nothing to compare" in error
    assert error.count("\n") == 1
    assert not (study / "report.md").exists()
