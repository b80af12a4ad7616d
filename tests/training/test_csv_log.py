"""A log of metrics is continued, and rows that cannot be written are not lost."""

import csv
from errno import ENOSPC
from pathlib import Path

import pytest

from htr_lightning.training.logger import csv_log
from htr_lightning.training.logger.csv_log import CSVLog, cut


def rows(path: Path) -> list[tuple[str, str]]:
    with path.open(newline="") as file:
        return [(row["step"], row["a"]) for row in csv.DictReader(file)]


def logged(folder: Path, first: int, last: int) -> None:
    logger = CSVLog(str(folder))
    for step in range(first, last):
        logger.log_metrics({"a": step / 2}, step)
    logger.log_metrics({"b": 1.0}, last)  # a new column
    logger.save()


def test_a_resumed_log_equals_one_that_was_not_interrupted(tmp_path: Path) -> None:
    logged(tmp_path, 0, 9)
    path = tmp_path / "metrics.csv"
    path.write_text(path.read_text() + "0.")  # a row that was being written when the process was killed
    cut(path, 5)
    assert rows(path) == [(str(step), str(step / 2)) for step in range(5)]
    logged(tmp_path, 5, 9)
    assert rows(path) == [*((str(step), str(step / 2)) for step in range(9)), ("9", "")]


def test_rows_that_cannot_be_written_are_written_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = CSVLog(str(tmp_path))
    logger.log_metrics({"a": 1.0}, 0)
    (tmp_path / "metrics.csv").mkdir()
    logger.save()
    assert "not written (Is a directory); the run goes on" in caplog.text
    (tmp_path / "metrics.csv").rmdir()
    logger.log_metrics({"a": 2.0}, 1)
    logger.save()
    assert rows(tmp_path / "metrics.csv") == [("0", "1.0"), ("1", "2.0")]


def test_a_column_that_is_new_while_the_disk_is_full_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, keys: list[str], rows: list[dict]) -> None:
        raise OSError(ENOSPC, "No space left on device")

    logger = CSVLog(str(tmp_path))
    logger.log_metrics({"b": 1.0}, 0)
    logger.save()
    logger.log_metrics({"a": 2.0, "b": 3.0}, 1)
    with monkeypatch.context() as patch:
        patch.setattr(csv_log, "_write", full)
        logger.save()
    assert "metrics.csv: not written (No space left on device); the run goes on" in caplog.text
    logger.log_metrics({"a": 4.0, "b": 5.0}, 2)
    logger.save()
    assert (tmp_path / "metrics.csv").read_text().split() == ["a,b,step", ",1.0,0", "2.0,3.0,1", "4.0,5.0,2"]
