"""Run the jobs of a sweep independently of each other, and compare them in a table."""

import csv
import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from htr_lightning.config import is_sweep, varying
from htr_lightning.yaml_file import load_yaml

RATES = ("val_cer", "val_wer", "test_cer", "test_wer")
RANK_VARIABLES = ("LOCAL_RANK", "NODE_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class SweepRanks(Callback):
    """A Hydra callback that makes each job of a sweep behave like a separate run.

    Lightning starts further ranks by running `sys.argv` again, which in a sweep would start all jobs. It also leaves
    its rank variables set, so that the next job would act as one of these ranks. While a job runs, this callback makes
    `sys.argv` describe only that job; when the job ends, it destroys the process group and restores the variables.
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
            wandb.finish()  # otherwise, the next job would log to the W&B run of this job
        torch = sys.modules.get("torch")  # not imported if the job failed early
        if torch and torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for name, value in self._variables.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


class Job(NamedTuple):
    """A job in a sweep, with its number, overrides and summary, which is empty if the job did not finish."""

    number: str
    overrides: str
    summary: dict[str, Any]


class SweepTable(Callback):
    """A Hydra callback that prints the jobs of a sweep, sorted by validation CER, and saves them as `sweep.tsv`."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        if jobs := jobs_of(folder):
            rows, figures = table(jobs), (*RATES, "seconds")
            with open(folder / "sweep.tsv", "w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, delimiter="\t", lineterminator="\n")
                writer.writerow(["job", *figures, "overrides"])
                for number, overrides, summary in jobs:
                    writer.writerow([number, *(summary.get(key, "") for key in figures), overrides])
            widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
            for row in rows:
                print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
            best = jobs[0]
            if best.summary:
                print(f"best: {folder / best.number} ({best.overrides})")
            print(f"table: {folder / 'sweep.tsv'}")


def jobs_of(folder: Path) -> list[Job]:
    """Return the jobs in a sweep folder, sorted by validation CER, with unfinished jobs last."""
    jobs = []
    for path in sorted(folder.glob("*/.hydra/overrides.yaml")):
        run = path.parent.parent
        overrides = varying(map(str, load_yaml(path)), folder)
        summary = run / "summary.json"
        found = json.loads(summary.read_text()) if summary.is_file() else {}
        jobs.append(Job(run.name, " ".join(overrides), found))
    return sorted(jobs, key=lambda job: (job.summary.get("val_cer", float("inf")), job.number))


def table(jobs: list[Job]) -> list[list[str]]:
    """Return the rows of a table of jobs, including the header."""
    rows = [["job", "val CER", "val WER", "test CER", "test WER", "seconds", "overrides"]]
    for number, overrides, summary in jobs:
        rates = [f"{summary[key]:.2%}" if summary else "failed" for key in RATES]
        rows.append([number, *rates, f"{summary['seconds']:.0f}" if summary else "", overrides])
    return rows
