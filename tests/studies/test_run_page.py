"""The page of a run, from the files of a small hand-made one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from momalit.cli import main
from momalit.core.errors import UserError
from momalit.studies.run_page import write_run_page

RESULTS = {
    "task": "game", "dataset": "game/one", "method": "MOMAPPO", "seed": 3, "return_random": 0.0, "return_data": 5.0,
    "return_last": 8.0, "return_last_interval": [7.5, 8.5], "estimate_last": 9.0, "return_best": 8.5,
    "estimate_best": 9.5, "wall_clock_seconds": 90, "versions": {"momalit": "1.0"},
    "model_check": {
        "path": {"error": 0.5, "uncertainty": 0.25, "bias": {"reward": -0.125}},
        "held_out": {"error": 0.4, "uncertainty": 0.2, "bias": {"reward": 0.0}},
        "over_time": [{"from": 0, "to": 5, "real_reward": 1.0, "imagined_reward": 1.1, "real_running": 1.0,
                       "imagined_running": 0.9}],
    },
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    record = {"dataset": {"dataset": "game/one", "env": {"size": 2}, "fingerprint": "abc"}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    (tmp_path / "metrics.csv").write_text("epoch,step,eval/return,eval/estimate\n0,9,1,2\n1,19,,\n2,29,8,9\n")
    (tmp_path / "config.yaml").write_text("title: <b>not a tag</b>\n")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/game_best_8.gif").write_bytes(b"GIF89a")
    return tmp_path


def test_the_page_shows_results_figures_film_and_configuration(run: Path) -> None:
    text = write_run_page(run).read_text()
    assert "<h1>MOMAPPO on game/one, seed 3</h1>" in text
    assert "Dataset game/one, size 2 (fingerprint abc). Trained in 1.5 minutes." in text
    assert "<td>last checkpoint</td><td>8.00</td><td>7.50 to 8.50</td><td>9.00</td>" in text
    assert "<td>bias of reward</td><td>-0.125</td><td>+0.000</td>" in text
    assert "<svg" in text
    assert 'src="data:image/gif;base64,R0lGODlh' in text
    assert "&lt;b&gt;not a tag" in text
    assert 'src="http' not in text


def test_the_page_says_that_no_environment_was_used(run: Path) -> None:
    (run / "results.json").write_text(json.dumps({**RESULTS, "return_last": None, "model_check": None}))
    assert "No environment was used" in write_run_page(run).read_text()


@pytest.mark.parametrize(("explained", "said"), [(0.85, True), (0.99, False), (None, False)])
def test_the_page_warns_of_a_world_model_that_knows_little_about_rewards(run: Path, explained, said) -> None:
    (run / "results.json").write_text(json.dumps({**RESULTS, "reward_explained": explained}))
    assert ("explains only 85% of the rewards" in write_run_page(run).read_text()) is said


def test_the_command_report_writes_a_runs_page_anew(run: Path) -> None:
    assert main(["report", str(run)]) == 0
    assert (run / "report.html").is_file()


def test_the_command_report_writes_a_runs_page_elsewhere_with_another_title(run: Path, capsys) -> None:
    assert main(["report", str(run), "--output", str(run / "other/pages"), "--title", "Mine"]) == 0
    assert "<h1>Mine</h1>" in (run / "other/pages/report.html").read_text()
    assert not (run / "report.html").exists()
    capsys.readouterr()
    assert main(["report", str(run), "--output", str(run / "config.yaml")]) == 2
    error = capsys.readouterr().err
    assert f"--output: {run / 'config.yaml'} cannot be written" in error
    assert error.count("\n") == 1


def test_a_run_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"results\.json: cannot be read, expected the results of a finished run"):
        write_run_page(tmp_path)
