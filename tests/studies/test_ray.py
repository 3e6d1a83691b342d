"""Jobs on a Ray cluster of one machine."""

from pathlib import Path

import pytest

from momalit.studies.execution import Job, RayEngine, run_jobs

ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")


def test_jobs_run_and_fail_as_they_do_locally(tmp_path: Path) -> None:
    good = Job("good", ("--version",), tmp_path / "good", tmp_path / "good" / "log.txt")
    bad = Job("bad", ("collect", "no/such"), tmp_path / "bad", tmp_path / "bad" / "result")
    try:
        done, failed = run_jobs([good, bad], RayEngine())
    finally:
        ray.shutdown()
    assert [job.name for job in done] == ["good"]
    assert [job.name for job in failed] == ["bad"]
