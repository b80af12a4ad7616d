"""Log the metrics of a run to `metrics.csv`, which a resumed run continues."""

import csv
import os
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only

from htr_lightning.output import beside, not_fatal


class CSVLog(CSVLogger):
    """A CSVLogger that appends to an existing `metrics.csv`; Lightning's own deletes it.

    Args:
        save_dir: run folder.
        flush_logs_every_n_steps: number of steps after which new rows are written.
    """

    def __init__(self, save_dir: str, flush_logs_every_n_steps: int = 100) -> None:
        super().__init__(save_dir, name="", version="", flush_logs_every_n_steps=flush_logs_every_n_steps)

    title = "metrics.csv"

    @rank_zero_only
    def begin(self, steps: int) -> None:
        """Remove the rows that were written after the step from which the run goes on."""
        cut(Path(self.log_dir) / "metrics.csv", steps)

    def log_hyperparams(self, params: Any = None) -> None:
        """Log nothing, since `.hydra/config.yaml` is in the same folder."""

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        if self._experiment is None:
            self._experiment = _Writer(self.log_dir)
        return self._experiment  # type: ignore[return-value]


class _Writer(ExperimentWriter):
    """The rows of a log that have not been written yet. Rows that cannot be written are kept for the next attempt."""

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        self.path = Path(self.metrics_file_path)
        if self.path.is_file():
            self.metrics_keys = _read(self.path)[0]

    def _check_log_dir_exists(self) -> None:
        """Keep what is in the folder."""

    def save(self) -> None:
        if not self.metrics:
            return
        keys = sorted({*self.metrics_keys, *(key for row in self.metrics for key in row)})
        with not_fatal(self.path):
            size = self.path.stat().st_size if self.path.is_file() else 0
            if keys != self.metrics_keys or not size:
                _write(self.path, keys, [*(_read(self.path)[1] if size else ()), *self.metrics])
                self.metrics_keys = keys  # not before the header in the file has them
            else:
                try:
                    with self.path.open("a", newline="", encoding="utf-8") as file:
                        csv.DictWriter(file, self.metrics_keys).writerows(self.metrics)
                except OSError:
                    os.truncate(self.path, size)
                    raise
            self.metrics = []


def cut(path: Path, steps: int) -> None:
    """Remove the rows of a log that were written after a step, so that a run resumed there can write them again.

    Args:
        path: path to the log, which may be missing.
        steps: number of steps whose rows are kept.
    """
    if not path.is_file():
        return
    with not_fatal(path):
        keys, rows = _read(path)
        _write(path, keys, [row for row in rows if (row.get("step") or "").isdecimal() and int(row["step"]) < steps])


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        return list(reader.fieldnames or ()), list(reader)


def _write(path: Path, keys: list[str], rows: list[dict]) -> None:
    with beside(path) as new, new.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, keys)
        writer.writeheader()
        writer.writerows(rows)
