"""Jobs: execution, skipping of finished jobs, failures and interruptions."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from momalit.core.errors import UserError
from momalit.core.files import locked
from momalit.studies.execution import Job, LocalEngine, RayEngine, format_duration, run_jobs


class Python(Job):
    """A job that runs a few lines of Python."""

    def run(self, on_start=lambda _: None, stopped=lambda: False) -> int:
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "log.txt").open("ab") as log:
            process = subprocess.Popen([sys.executable, "-c", *self.arguments], stderr=log, cwd=self.directory)
            on_start(process)
            return process.wait()


# Appends an x to the result, which counts the runs.
COUNT = "import pathlib; p = pathlib.Path('result'); p.write_text(p.read_text() + 'x' if p.exists() else 'x')"


def job(folder: Path, code: str = COUNT) -> Job:
    return Python(folder.name, (code,), folder, folder / "result")


def test_finished_jobs_are_skipped_and_a_failure_does_not_stop_the_others(tmp_path, caplog):
    jobs = [job(tmp_path / "a"), job(tmp_path / "bad", "raise SystemExit('no such luck')"), job(tmp_path / "b")]
    caplog.set_level("INFO", "momalit")
    succeeded = []
    done, failed = run_jobs(jobs, LocalEngine(2), succeeded.append)
    assert [j.name for j in done] == ["a", "b"]
    assert sorted(j.name for j in succeeded) == ["a", "b"]
    assert [j.name for j in failed] == ["bad"]
    assert "bad failed (exit code 1): no such luck" in caplog.text
    done, failed = run_jobs(jobs, LocalEngine(2))
    assert [(tmp_path / name / "result").read_text() for name in "ab"] == ["x", "x"]
    assert "2 of 3 jobs are already done" in caplog.text


def test_the_number_of_parallel_jobs_is_limited(tmp_path):
    code = (
        "import pathlib, time, os; here = pathlib.Path('..', f'on-{os.getpid()}'); here.touch(); time.sleep(0.2);"
        "pathlib.Path('result').write_text(str(len(list(pathlib.Path('..').glob('on-*'))))); here.unlink()"
    )
    jobs = [job(tmp_path / str(i), code) for i in range(5)]
    assert not run_jobs(jobs, LocalEngine(2))[1]
    assert max(int(j.result.read_text()) for j in jobs) <= 2


def test_an_interruption_terminates_the_processes(tmp_path):
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


def test_a_real_job_logs_stores_its_arguments_and_resumes(tmp_path):
    arguments = ("collect", "no/such")
    failing = Job("wrong", arguments, tmp_path, tmp_path / "result", resume_arguments=("--ckpt_path=last",))
    assert failing.run() == 2
    assert json.loads((tmp_path / "command.json").read_text()) == list(arguments)
    assert "no/such" in failing.last_log_line
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    assert failing.run() == 2
    assert "ckpt_path" in failing.last_log_line


@pytest.mark.fault("a study was killed, its run lives on", "another process has the run", "waits, trains nothing twice")
def test_a_job_waits_for_a_run_that_outlived_its_study(tmp_path, caplog):
    caplog.set_level("INFO", "momalit")
    mine = Job("mine", ("collect", "no/such"), tmp_path, tmp_path / "result")
    with locked(tmp_path / "run"):
        assert mine.run(stopped=lambda: True) < 0
        finishes = threading.Timer(0.5, mine.result.touch)
        finishes.start()
        waiting = threading.Thread(target=lambda: codes.append(mine.run()))
        codes = []
        waiting.start()
        finishes.join()
    waiting.join()
    assert codes == [0]
    assert "mine: another process is still running it" in caplog.text
    assert not (tmp_path / "log.txt").exists()


def test_results_of_other_settings_raise_an_error(tmp_path):
    before = job(tmp_path / "a")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "command.json").write_text(json.dumps(["fit", "--model.lr=1"]))
    now = Python("a", ("fit", "--model.lr=2"), before.directory, before.result)
    with pytest.raises(UserError, match=r"found a run with --model.lr=1, expected --model.lr=2"):
        run_jobs([now], LocalEngine(1))


def test_a_missing_ray_package_raises_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"--engine ray: found no package ray"):
        RayEngine()


def test_durations_have_minutes_and_hours():
    assert [format_duration(seconds) for seconds in (0, 59.6, 125, 3723)] == ["0:00", "1:00", "2:05", "1:02:03"]
