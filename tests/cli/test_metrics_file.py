"""MetricsFile: rows per epoch, column order and truncation."""

from __future__ import annotations

from pathlib import Path

from momalit.cli.metrics_file import MetricsFile


def test_one_row_per_epoch_and_sorted_columns(tmp_path: Path):
    file = MetricsFile(tmp_path / "metrics.csv")
    file.log_metrics({"epoch": 0, "b": 0.5}, 3)
    file.log_metrics({"epoch": 0, "a": 0.1, "time/step": 9.0, "test/return": 1.0}, 3)
    file.log_metrics({"epoch": 1, "b": 2.0}, 7)
    file.log_metrics({"epoch": 1, "b": 30.0}, 8)
    assert file.path.read_text() == "epoch,step,a,b\n0,3,0.1,0.5\n1,8,,30.0\n"
    file.log_metrics({"epoch": 2, "c": 1.0}, 9)
    assert file.path.read_text() == "epoch,step,a,b,c\n0,3,0.1,0.5,\n1,8,,30.0,\n2,9,,,1.0\n"


def test_shorter_row_replaces_a_longer_one_completely(tmp_path: Path):
    file = MetricsFile(tmp_path / "metrics.csv")
    file.log_metrics({"epoch": 0, "a": 0.123456789}, 1)
    file.log_metrics({"epoch": 0, "a": 1.0}, 1)
    assert file.path.read_text() == "epoch,step,a\n0,1,1.0\n"


def test_truncate_drops_the_rows_of_later_epochs(tmp_path: Path):
    first = MetricsFile(tmp_path / "metrics.csv")
    for epoch in range(4):
        first.log_metrics({"epoch": epoch, "a": float(epoch)}, epoch)
    second = MetricsFile(first.path)
    second.truncate(2)
    second.log_metrics({"epoch": 2, "a": 2.0}, 2)
    second.log_metrics({"epoch": 3, "a": 3.0}, 3)
    assert first.path.read_text() == "epoch,step,a\n0,0,0.0\n1,1,1.0\n2,2,2.0\n3,3,3.0\n"
    third = MetricsFile(first.path)
    third.truncate(0)
    assert first.path.read_text() == "epoch,step\n"


def test_metrics_without_an_epoch_are_ignored(tmp_path: Path):
    file = MetricsFile(tmp_path / "metrics.csv")
    file.log_metrics({"a": 1.0}, 0)
    file.log_metrics({"epoch": 0, "test/return": 1.0}, 0)
    assert not file.path.exists()


def test_truncate_drops_an_incomplete_row(tmp_path: Path):
    file = MetricsFile(tmp_path / "metrics.csv")
    for epoch in range(11):
        file.log_metrics({"epoch": epoch, "a": float(epoch)}, epoch)
    text = file.path.read_text()
    file.path.write_text(text[: text.index("10,10") + 1])  # only the first digit of epoch 10's row remains
    second = MetricsFile(file.path)
    second.truncate(10)
    assert file.path.read_text() == text[: text.index("10,10")]
