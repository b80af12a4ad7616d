"""Sweeps: the table of jobs and their W&B runs; offline W&B runs that can be copied."""

import csv
import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SMALL
from wandb.proto.wandb_internal_pb2 import Record

from htr_lightning.training.sweep import by_seed, jobs_of, table
from htr_lightning.training.sweep_job import record


def records(path: Path) -> Iterator[Record]:
    """Return the records in a `.wandb` file: after 7 bytes, 32 KiB blocks of chunks, as in the LevelDB log format."""
    data, position, whole = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        whole = (b"" if kind in (1, 2) else whole) + data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a full record, or the last fragment
            record = Record()
            record.ParseFromString(whole)
            yield record


def wandb_run(folder: Path) -> dict[str, Any]:
    """Return the name, group, tags, config, summary, history and files found in a copied run folder."""
    (path,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    found: dict[str, Any] = {"config": {}, "summary": {}, "history": [], "files": []}
    for one in records(path):
        for update in one.run.config.update if one.HasField("run") else one.config.update:
            found["config"][update.key] = json.loads(update.value_json)
        for update in one.summary.update:
            found["summary"][update.key or ".".join(update.nested_key)] = json.loads(update.value_json)
        if one.HasField("run"):
            found |= {"name": one.run.display_name, "group": one.run.run_group, "tags": list(one.run.tags)}
        if one.HasField("history"):
            items = one.history.item
            found["history"].append({item.key or ".".join(item.nested_key): item.value_json for item in items})
        found["files"] += [path.parent / "files" / file.path for file in one.files.files]
    return found


def test_a_copied_offline_run_is_complete(run_folder: Path, tmp_path: Path) -> None:
    copied = wandb_run(shutil.copytree(run_folder, tmp_path / "elsewhere"))
    summary = json.loads((run_folder / "summary.json").read_text())
    assert (copied["name"], copied["group"], copied["tags"]) == ("crnn-synthetic", "", ["crnn", "synthetic"])
    assert copied["config"]["model"]["net"]["hidden"] == 16
    curve = [float(step["val/cer"]) for step in copied["history"] if "val/cer" in step]
    assert len(curve) == 2
    assert copied["summary"]["val/cer"]["min"] == min(curve) == pytest.approx(summary["val_cer"])
    assert {key: copied["summary"][key] for key in summary if key not in ("checkpoint", "card")} == {
        key: value for key, value in summary.items() if key not in ("checkpoint", "card")
    }
    pictures = [file for file in copied["files"] if file.suffix == ".png"]
    assert len(pictures) == 3
    assert all(file.is_file() and file.is_relative_to(tmp_path) for file in pictures)


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
        "sys.argv", ["train.py", "-m", "optimizer.lr=1e-3,3e-3", *small, "trainer.max_epochs=1", folder]
    )
    train.train()
    with open(tmp_path / "day" / "s" / "sweep.tsv") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert {row["overrides"] for row in rows} == {"optimizer.lr=0.001", "optimizer.lr=0.003"}
    out = capsys.readouterr().out
    assert f"best: {tmp_path / 'day' / 's' / rows[0]['job']} ({rows[0]['overrides']})" in out
    for row in rows:
        run = wandb_run(tmp_path / "day" / "s" / row["job"])
        assert (run["name"], run["group"]) == (f"crnn-synthetic {row['overrides']}", "day/s")
        assert run["tags"] == ["crnn", "synthetic", "sweep"]
