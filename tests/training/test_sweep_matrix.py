"""Sweeps by each sweeper and launcher, with one and two ranks, in which one job fails: a table.

`make test-slow ARGS="tests/training/test_sweep_matrix.py -s"` prints a row for each combination.
"""

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from conftest import SMALL

from htr_lightning.training.sweep_job import read_record

from .test_deaths import ROOT, alive

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]
VALUES = "data.max_lines=4,0"  # a batch of 0 lines is refused
WAYS = {
    "list": [],
    "optuna": ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra.sweeper.sampler.seed=0"],  # 0, then 4
    "joblib": ["hydra/launcher=joblib"],
    "submitit": ["hydra/launcher=submitit_local"],
    "ray": ["hydra/launcher=ray"],  # of hydra-ray-launcher, which is no extra
}
HEAD = ("sweep", "ranks", "jobs", "folders", "states", "objective", "best val CER", "exit code", "seconds", "processes")


@pytest.fixture(scope="module")
def table() -> Iterator[list[tuple[object, ...]]]:
    rows: list[tuple[object, ...]] = [HEAD, ("---",) * len(HEAD)]
    yield rows
    print("", *("| " + " | ".join(map(str, row)) + " |" for row in rows), sep="\n")


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("way", WAYS)
def test_a_failing_job_is_told_and_the_other_gives_its_best_validation_cer(
    way: str, ranks: int, tmp_path: Path, table: list[tuple[object, ...]]
) -> None:
    if way == "ray":
        pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    sweep, mark = tmp_path / "sweep", uuid4().hex
    command = [sys.executable, str(ROOT / "train.py"), "-m", *WAYS[way], *SMALL, "logger=csv", "trainer.max_epochs=2",
               "trainer.accelerator=cpu", f"trainer.devices={ranks}", VALUES, f"hydra.sweep.dir={sweep}",
               "data.reader.lines={train: 24, val: 3, test: 3}"]  # fmt: skip
    began = time.time()
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT), "MARK": mark}, text=True, timeout=280,
        capture_output=True,
    )  # fmt: skip
    seconds, left = time.time() - began, alive(mark)
    said = done.stdout + done.stderr
    folders = sorted(path.name for path in sweep.iterdir() if path.is_dir() and path.name.isdecimal())
    records = {int(name): read_record(sweep / name) for name in folders}
    finished = next(number for number, its in records.items() if its["state"] == "done")
    with (sweep / str(finished) / "metrics.csv").open() as file:
        scores = [float(row["val/cer"]) for row in csv.DictReader(file) if row["val/cer"]]
    value = records[finished]["value"]
    states = ", ".join(its["state"] for its in records.values())
    table.append((way, ranks, len(records), len(folders), states, f"{value:.4f}", f"{min(scores):.4f}",
                  done.returncode, f"{seconds:.0f}", len(left)))  # fmt: skip
    assert folders == ["0", "1"], said
    assert sorted(its["state"] for its in records.values()) == ["done", "failed"], said
    summary = json.loads((sweep / str(finished) / "summary.json").read_text())
    assert [value, summary["val_cer"]] == pytest.approx([min(scores)] * 2, abs=1e-6)
    assert done.returncode == 1
    assert "error: 1 of 2 jobs failed" in done.stderr
    assert "data.max_lines=0" in done.stderr.split("error: 1 of 2 jobs failed")[1]
    assert not left
