"""Compare the jobs of a sweep: a table, means over seeds, a picture, and which of them failed."""

import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import mean, stdev
from typing import Any, ClassVar, NamedTuple

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from htr_lightning.config import varying
from htr_lightning.errors import InputError
from htr_lightning.training.sweep_job import FINISHED, lost_process, read_record
from htr_lightning.yaml_file import load_yaml

RATES = ("val_cer", "val_wer", "test_cer", "test_wer")
FAILURES = 5  # failed jobs that the message at the end describes
BARS = 60  # jobs in the picture
IMPORTANCES = "optimization_results.yaml"  # written by the Optuna sweeper


class Job(NamedTuple):
    """A job in a sweep.

    Attributes:
        number: number of the job, the name of its folder.
        overrides: overrides that vary in the sweep.
        state: "done", "pruned", or "failed", also if the job did not end.
        value: best validation score, normally the CER; None if the job failed.
        seconds: duration, or None if unknown.
        summary: content of `summary.json`; empty if the job failed.
        error: reason of the failure, or "".
    """

    number: str
    overrides: list[str]
    state: str
    value: float | None
    seconds: float | None
    summary: dict[str, Any]
    error: str


class SeedGroup(NamedTuple):
    """Jobs that differ only in their seed: their overrides without it, their number, and mean and deviation by rate."""

    overrides: list[str]
    jobs: int
    rates: dict[str, tuple[float, float]]


class SweepTable(Callback):
    """A Hydra callback that notes the folder of a sweep, in which `concluding` compares the jobs, and its loggers."""

    folder: ClassVar[Path | None] = None
    project: ClassVar[str | None] = None  # of Weights & Biases, if the jobs are logged there

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        SweepTable.folder = Path(config.hydra.sweep.dir)
        chosen: Any = config.get("logger") or {}
        SweepTable.project = chosen.wandb.get("project") if "wandb" in chosen else None


@contextmanager
def concluding() -> Iterator[None]:
    """Compare the jobs of the sweep that runs in the context, also if its launcher fails or a signal stops it.

    Raises:
        InputError: if jobs failed.
    """
    SweepTable.folder = None
    try:
        yield
    except BaseException as error:
        jobs = _conclude()
        if not lost_process(error) or not any(job.state == "failed" for job in jobs):
            raise
    else:
        jobs = _conclude()
    if failed := [job for job in jobs if job.state == "failed"]:
        told = [f"{job.number} ({' '.join(job.overrides)}): {job.error}" for job in failed[:FAILURES]]
        more = f"; and {len(failed) - FAILURES} more" if len(failed) > FAILURES else ""
        raise InputError(f"{len(failed)} of {len(jobs)} jobs failed: {'; '.join(told)}{more}")


def _conclude() -> list[Job]:
    """Print the table of the jobs, write it as `sweep.tsv` and the pictures beside it, and return the jobs."""
    folder = SweepTable.folder
    jobs = jobs_of(folder) if folder is not None else []
    if folder is None or not jobs:
        return []
    results = load_yaml(folder / IMPORTANCES) if (folder / IMPORTANCES).is_file() else {}
    importances, groups = results.get("importances", {}), by_seed(jobs)
    figures = (*RATES, "seconds")
    _write(
        folder / "sweep.tsv",
        ["job", "state", *figures, "overrides", "error"],
        [[job.number, job.state, *(_figure(job, key) for key in figures), " ".join(job.overrides), job.error]
         for job in jobs],
    )  # fmt: skip
    _print(table(jobs))
    if groups:
        names = [f"{rate}_{part}" for rate in RATES for part in ("mean", "sd")]
        rows = [[group.jobs, *(x for rate in RATES for x in group.rates[rate]), " ".join(group.overrides)]
                for group in groups]  # fmt: skip
        _write(folder / "seeds.tsv", ["jobs", *names, "overrides"], rows)
        _print(seed_table(groups))
    if importances:
        shares = ", ".join(f"{key} {share:.0%}" for key, share in importances.items())
        print(f"importance of the parameters: {shares}")
    if jobs[0].state == "done":
        print(f"best: {folder / jobs[0].number} ({' '.join(jobs[0].overrides)})")
    print(f"table: {folder / 'sweep.tsv'}")
    if any(job.value is not None for job in jobs):
        _draw(jobs, importances, folder / "sweep.png")
        print(f"picture: {folder / 'sweep.png'}", flush=True)
        _draw_parallel(jobs, folder)
    return jobs


def jobs_of(folder: Path) -> list[Job]:
    """Return the jobs in a sweep folder, sorted by value: those that finished, those pruned, then those that failed."""
    jobs = []
    for path in sorted(folder.glob("*/.hydra/overrides.yaml")):
        run = path.parent.parent
        found, summary = read_record(run), run / "summary.json"
        overrides = varying(map(str, found.get("overrides") or load_yaml(path)), folder)
        figures = json.loads(summary.read_text(encoding="utf-8")) if summary.is_file() else {}
        state = found.get("state", "done" if figures else "failed")
        error = found.get("error", "") or ("stopped before its end" if state == "running" else "")
        if state not in FINISHED:
            state, figures = "failed", {}
        value = found.get("value", figures.get("val_cer")) if state in FINISHED else None
        jobs.append(
            Job(run.name, overrides, state, value, found.get("seconds", figures.get("seconds")), figures, error)
        )
    order = (*FINISHED, "failed")
    return sorted(jobs, key=lambda job: (order.index(job.state), job.value or 0.0, job.number.rjust(9)))


def by_seed(jobs: Sequence[Job]) -> list[SeedGroup]:
    """Return mean and standard deviation (of a sample, n - 1) of finished jobs that differ only in `seed`."""
    found: dict[tuple[str, ...], list[Job]] = {}
    for job in jobs:
        if job.state == "done" and job.summary and any(one.startswith("seed=") for one in job.overrides):
            found.setdefault(tuple(one for one in job.overrides if not one.startswith("seed=")), []).append(job)
    groups = []
    for overrides, same in found.items():
        if len(same) > 1:
            columns = {rate: [job.summary[rate] for job in same] for rate in RATES}
            rates = {rate: (mean(column), stdev(column)) for rate, column in columns.items()}
            groups.append(SeedGroup(list(overrides), len(same), rates))
    return sorted(groups, key=lambda group: group.rates["val_cer"])


def table(jobs: Sequence[Job]) -> list[list[str]]:
    """Return the rows of a table of jobs, including the header."""
    rows = [["job", "state", "val CER", "val WER", "test CER", "test WER", "seconds", "overrides"]]
    for job in jobs:
        rates = [f"{job.summary[key]:.2%}" if job.summary else "" for key in RATES]
        seconds = "" if job.seconds is None else f"{job.seconds:.0f}"
        rows.append([job.number, job.state, *rates, seconds, " ".join(job.overrides)])
    return rows


def seed_table(groups: Sequence[SeedGroup]) -> list[list[str]]:
    """Return the rows of a table of means over seeds, including the header."""
    rows = [["seeds", "val CER", "val WER", "test CER", "test WER", "overrides"]]
    for group in groups:
        rates = [f"{100 * middle:.2f} ± {100 * spread:.2f} %" for middle, spread in group.rates.values()]
        rows.append([str(group.jobs), *rates, " ".join(group.overrides)])
    return rows


def _figure(job: Job, key: str) -> Any:
    if key == "seconds":
        return "" if job.seconds is None else round(job.seconds, 1)
    return job.summary.get(key, job.value if key == "val_cer" and job.value is not None else "")


def _write(path: Path, head: list[str], rows: list[list[Any]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerows([head, *rows])


def _print(rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _draw(jobs: Sequence[Job], importances: dict[str, float], path: Path) -> None:
    """Draw the values of the jobs, and below them the importances of the parameters."""
    import cv2  # takes a tenth of a second, and this module is imported for every run

    from htr_lightning.picture import bar_chart

    shown = [job for job in jobs if job.value is not None][:BARS]
    title = "best validation score of each job" + f" (the best {BARS} of {len(jobs)})" * (len(jobs) > BARS)
    bars = [(f"{job.number}  {' '.join(job.overrides)}", job.value or 0.0, f"{job.value:.2%}", job.state == "pruned")
            for job in shown]  # fmt: skip
    charts = [(title, bars)]
    if importances:
        charts.append(("importance of each parameter",
                       [(key, share, f"{share:.0%}", False) for key, share in importances.items()]))  # fmt: skip
    cv2.imwrite(str(path), cv2.cvtColor(bar_chart(charts), cv2.COLOR_RGB2BGR))


def _draw_parallel(jobs: Sequence[Job], folder: Path) -> None:
    """Write the parallel coordinates of the jobs, and log them to Weights & Biases beside their table."""
    from htr_lightning.training.parallel import page

    finished = [job for job in jobs if job.value is not None]
    values = [dict(one.split("=", 1) for one in job.overrides) for job in finished]
    if not any(values):
        return
    group = "/".join(folder.parts[-2:])
    lines = [(f"job {job.number}", its, job.value or 0.0) for job, its in zip(finished, values, strict=True)]
    path = folder / "sweep.html"
    path.write_text(page(lines, group), encoding="utf-8")
    print(f"parallel coordinates: {path}", flush=True)
    if SweepTable.project is None:
        return
    from htr_lightning.training.logger.wandb import log_sweep  # imports torch

    keys = list(dict.fromkeys(key for its in values for key in its))
    rows = [[job.number, job.state, *(its.get(key) for key in keys), *(job.summary.get(rate) for rate in RATES)]
            for job, its in zip(finished, values, strict=True)]  # fmt: skip
    log_sweep(folder, SweepTable.project, group, ["job", "state", *keys, *RATES], rows, path)
