"""The jobs of a sweep: each runs like a run of its own, and a table compares them at the end."""

import csv
import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from htr_lightning.config import is_sweep, varying

RANK_VARIABLES = ("LOCAL_RANK", "NODE_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class SweepRanks(Callback):
    """Makes each job of `-m` look like a run of its own.

    Lightning starts further ranks by running `sys.argv` again, which in a sweep covers all jobs, and leaves its
    rank variables set, so that the next job takes itself for one of those ranks. While a job runs, `sys.argv` describes
    that job alone; when it ends, the process group is destroyed and the variables are restored.
    """

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._argv = list(sys.argv)
        self._variables = {name: os.environ.get(name) for name in RANK_VARIABLES}
        if is_sweep():
            hydra = HydraConfig.get()
            options = [f"--config-name={hydra.job.config_name}"]
            added = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
            options += [f"--config-dir={path}" for path in added]
            folder = f'hydra.run.dir="{hydra.runtime.output_dir}"'
            print(f"job {hydra.job.num}: {' '.join(varying(hydra.overrides.task, Path(hydra.sweep.dir)))}")
            sys.argv = [sys.argv[0], *options, *hydra.overrides.task, folder]

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        sys.argv = self._argv
        if wandb := sys.modules.get("wandb"):
            wandb.finish()  # or the next job would log to the W&B run of this one
        torch = sys.modules.get("torch")  # a job that failed early has not imported it
        if torch and torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for name, value in self._variables.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


class Job(NamedTuple):
    """One job of a sweep: its number, its overrides, and its `summary.json`, empty if it did not finish."""

    number: str
    overrides: str
    summary: dict[str, Any]


class SweepTable(Callback):
    """A table of the jobs of a sweep, the best validation CER first, on the screen and as `sweep.tsv` in its folder."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        if jobs := jobs_of(folder):
            rows = table(jobs)
            with open(folder / "sweep.tsv", "w", encoding="utf-8", newline="") as file:
                csv.writer(file, delimiter="\t", lineterminator="\n").writerows(rows)
            widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
            for row in rows:
                print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
            best = jobs[0]
            if best.summary:
                print(f"best: {folder / best.number} ({best.overrides})")
            print(f"table: {folder / 'sweep.tsv'}")


def jobs_of(folder: Path) -> list[Job]:
    """The jobs in the folder of a sweep, the best validation CER first, unfinished jobs last."""
    jobs = []
    for path in sorted(folder.glob("*/.hydra/overrides.yaml")):
        run = path.parent.parent
        overrides = varying(map(str, OmegaConf.load(path)), folder)
        summary = run / "summary.json"
        found = json.loads(summary.read_text()) if summary.is_file() else {}
        jobs.append(Job(run.name, " ".join(overrides), found))
    return sorted(jobs, key=lambda job: (job.summary.get("val_cer", float("inf")), job.number))


def table(jobs: list[Job]) -> list[list[str]]:
    """The rows of the table, its header first."""
    rows = [["job", "val CER", "val WER", "test CER", "test WER", "seconds", "overrides"]]
    for number, overrides, summary in jobs:
        rates = [
            f"{summary[key]:.2%}" if summary else "failed" for key in ("val_cer", "val_wer", "test_cer", "test_wer")
        ]
        rows.append([number, *rates, f"{summary['seconds']:.0f}" if summary else "", overrides])
    return rows
