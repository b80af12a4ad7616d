"""Sweeps: the table of jobs and their W&B runs."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SMALL

from htr_lightning.evidence.tracked import offline_runs
from htr_lightning.training.sweep import by_seed, jobs_of, table
from htr_lightning.training.sweep_job import record


def job(folder: Path, number: int, overrides: list[str], val: float | None, **fields: Any) -> None:
    (folder / str(number) / ".hydra").mkdir(parents=True)
    (folder / str(number) / ".hydra" / "overrides.yaml").write_text("".join(f"- {one}\n" for one in overrides))
    if val is not None:
        figures = {f"{split}_{rate}": val for split in ("val", "test") for rate in ("cer", "wer")}
        (folder / str(number) / "summary.json").write_text(json.dumps({**figures, "seconds": 61.4}))
    record(folder / str(number), **{"state": "failed" if val is None else "done", "value": val, "seconds": 70} | fields)


def write_sweep(folder: Path, *task: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "multirun.yaml").write_text(json.dumps({"hydra": {"overrides": {"task": task}}}))


def test_jobs_are_sorted_by_validation_cer_and_named_by_varying_overrides(tmp_path: Path) -> None:
    write_sweep(tmp_path, "data=copiste", "optimizer.lr=1e-3,3e-3,1e-2", "model=crnn,vit_ctc")
    for number, (lr, val) in enumerate([("1e-3", 0.25), ("3e-3", 0.125), ("1e-2", None)]):
        job(tmp_path, number, ["data=copiste", f"optimizer.lr={lr}", "model=crnn"], val)
    job(tmp_path, 3, ["data=copiste", "optimizer.lr=1", "model=crnn"], 0.0625, state="pruned")
    job(tmp_path, 4, ["data=copiste", "optimizer.lr=2", "model=crnn"], None, state="running")
    jobs = jobs_of(tmp_path)
    assert [(one.number, one.state) for one in jobs] == [
        ("1", "done"), ("0", "done"), ("3", "pruned"), ("2", "failed"), ("4", "failed")
    ]  # fmt: skip
    assert jobs[0].overrides == ["optimizer.lr=3e-3", "model=crnn"]
    assert jobs[4].error == "stopped before its end"
    rows = table(jobs)
    assert rows[1] == ["1", "done", "12.50%", "12.50%", "12.50%", "12.50%", "70", "optimizer.lr=3e-3 model=crnn"]
    assert rows[4][:3] == ["2", "failed", ""]


def test_jobs_that_differ_only_in_their_seed_give_a_mean_and_a_standard_deviation(tmp_path: Path) -> None:
    write_sweep(tmp_path, "optimizer.lr=1,2,3", "seed=0,1,2")
    values = np.array([[0.3, 0.1, 0.5], [0.25, 0.26, 0.3], [0.2, np.nan, np.nan]])
    for number, ((lr, seed), val) in enumerate(np.ndenumerate(values)):
        job(tmp_path, number, [f"optimizer.lr={lr}", f"seed={seed}"], None if np.isnan(val) else val)
    first, second = by_seed(jobs_of(tmp_path))  # a single finished seed has no deviation
    assert (first.overrides, first.jobs) == (["optimizer.lr=1"], 3)
    assert first.rates["test_wer"] == pytest.approx((values[1].mean(), values[1].std(ddof=1)))
    assert second.rates["val_cer"] == pytest.approx((values[0].mean(), values[0].std(ddof=1)))


def test_jobs_that_differ_in_more_than_the_seed_have_no_mean(tmp_path: Path) -> None:
    write_sweep(tmp_path, "optimizer.lr=1,2")
    for number in range(2):
        job(tmp_path, number, [f"optimizer.lr={number}"], 0.5)
    assert by_seed(jobs_of(tmp_path)) == []


@pytest.mark.slow
def test_a_sweep_ends_with_a_table_and_groups_its_jobs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import train

    small = [one.replace(" ", "") for one in SMALL]
    folder = f"hydra.sweep.dir={tmp_path / 'day' / 's'}"
    monkeypatch.setattr(
        "sys.argv", ["train.py", "-m", "optimizer.lr=1e-3,3e-3", *small, "logger=wandb", "trainer.max_epochs=1", folder]
    )
    train.train()
    with open(tmp_path / "day" / "s" / "sweep.tsv") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert {row["overrides"] for row in rows} == {"optimizer.lr=0.001", "optimizer.lr=0.003"}
    out = capsys.readouterr().out
    assert f"best: {tmp_path / 'day' / 's' / rows[0]['job']} ({rows[0]['overrides']})" in out
    for row in rows:
        (run,) = offline_runs(tmp_path / "day" / "s" / row["job"])
        assert (run.name, run.group) == (f"crnn-synthetic {row['overrides']}", "day/s")
        assert run.tags == ["crnn", "synthetic", "sweep"]
