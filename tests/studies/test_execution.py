"""Jobs: what runs, what is skipped, what goes on after a failure or an interruption."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from momalit.core.errors import UserError
from momalit.studies.execution import Job, LocalEngine, RayEngine, clock, run_jobs


class Python(Job):
    """A job of a few lines of Python; its result is a file that says how often it ran."""

    def run(self, started=lambda _: None) -> int:
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "log.txt").open("ab") as log:
            process = subprocess.Popen([sys.executable, "-c", *self.words], stderr=log, cwd=self.directory)
            started(process)
            return process.wait()


COUNT = "import pathlib; p = pathlib.Path('result'); p.write_text(p.read_text() + 'x' if p.exists() else 'x')"


def job(folder: Path, code: str = COUNT) -> Job:
    return Python(folder.name, (code,), folder, folder / "result")


def test_what_is_done_is_skipped_and_what_fails_stops_nothing(tmp_path, caplog):
    jobs = [job(tmp_path / "a"), job(tmp_path / "bad", "raise SystemExit('no such luck')"), job(tmp_path / "b")]
    caplog.set_level("INFO", "momalit")
    seen = []
    done, failed = run_jobs(jobs, LocalEngine(2), seen.append)
    assert [j.name for j in done] == ["a", "b"]
    assert sorted(j.name for j in seen) == ["a", "b"]
    assert [j.name for j in failed] == ["bad"]
    assert "bad failed (exit code 1): no such luck" in caplog.text
    done, failed = run_jobs(jobs, LocalEngine(2))
    assert [(tmp_path / name / "result").read_text() for name in "ab"] == ["x", "x"]
    assert "2 of 3 are done already" in caplog.text


def test_no_more_than_asked_run_at_once(tmp_path):
    code = (
        "import pathlib, time, os; here = pathlib.Path('..', f'on-{os.getpid()}'); here.touch(); time.sleep(0.2);"
        "pathlib.Path('result').write_text(str(len(list(pathlib.Path('..').glob('on-*'))))); here.unlink()"
    )
    jobs = [job(tmp_path / str(i), code) for i in range(5)]
    assert not run_jobs(jobs, LocalEngine(2))[1]
    assert max(int(j.result.read_text()) for j in jobs) <= 2


def test_an_interruption_ends_the_processes(tmp_path):
    begun = tmp_path / "long" / "begun"
    jobs = [job(tmp_path / "long", "import pathlib, time; pathlib.Path('begun').touch(); time.sleep(60)")]
    jobs.append(job(tmp_path / "later"))

    def interrupt() -> None:
        while not begun.is_file():
            stop.wait(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    stop, before = threading.Event(), signal.getsignal(signal.SIGTERM)
    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        run_jobs(jobs, LocalEngine(1))
    assert not jobs[1].done
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_real_job_logs_remembers_its_words_and_goes_on(tmp_path):
    words = ("collect", "no/such")
    plain = Job("wrong", words, tmp_path, tmp_path / "result", resumes=("--ckpt_path=last",))
    assert plain.run() == 2
    assert json.loads((tmp_path / "command.json").read_text()) == list(words)
    assert "no/such" in plain.last_words
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    assert plain.run() == 2
    assert "ckpt_path" in plain.last_words


def test_results_of_other_settings_are_refused(tmp_path):
    before = job(tmp_path / "a")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "command.json").write_text(json.dumps(["fit", "--model.lr=1"]))
    now = Python("a", ("fit", "--model.lr=2"), before.directory, before.result)
    with pytest.raises(UserError, match=r"was run with --model.lr=1, and the study now says --model.lr=2"):
        run_jobs([now], LocalEngine(1))


def test_ray_is_asked_for_by_name_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"--engine ray: found no package ray"):
        RayEngine()


def test_durations_are_written_for_people():
    assert [clock(seconds) for seconds in (0, 59.6, 125, 3723)] == ["0:00", "1:00", "2:05", "1:02:03"]
