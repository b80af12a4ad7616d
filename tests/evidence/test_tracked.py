"""Runs of Weights & Biases are read from their files, and from the server, as they were logged."""

import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from htr_lightning.errors import InputError
from htr_lightning.evidence.tracked import offline_runs, online_runs, table


def test_an_offline_run_is_read_as_it_was_logged(run_folder: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(run_folder, tmp_path / "elsewhere")
    (found,) = offline_runs(copied)
    (files,) = copied.glob("wandb/offline-run-*/files")
    for key in ("val/transcriptions", "test/transcriptions", "test/confusions"):
        assert (files / found.summary[key]["filenames"][0]).is_file()
    assert (found.name, found.group, found.tags) == ("crnn-synthetic", "", ["crnn", "synthetic"])
    with open(run_folder / "metrics.csv") as file:
        logged = {int(row["step"]): float(row["val/cer"]) for row in csv.DictReader(file) if row["val/cer"]}
    read = dict(zip(*found.curves["val/cer"], strict=True))
    assert read == pytest.approx(logged, rel=1e-6)
    summary = json.loads((run_folder / "summary.json").read_text())
    assert {key: found.summary[key] for key in summary if key != "checkpoint"} == {
        key: value for key, value in summary.items() if key != "checkpoint"
    }
    assert found.config["model"]["net"]["hidden"] == 16
    (row,) = table([found, found._replace(summary={})]).rows
    assert row[:4] == ["crnn-synthetic", "", summary["val_cer"], summary["test_cer"]]
    assert found.config["card"]["data"]["test"]["lines"] == 24


def test_a_run_that_was_killed_is_read_up_to_its_last_record(run_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run_folder, tmp_path / "killed")
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    content = path.read_bytes()
    (whole,) = offline_runs(folder)
    path.write_bytes(content[: -len(content) // 8])
    (half,) = offline_runs(folder)
    assert half.config == whole.config
    steps = half.curves["train/loss"].steps
    assert steps == whole.curves["train/loss"].steps[: len(steps)]


def test_the_parts_of_a_resumed_run_are_one_run(run_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run_folder, tmp_path / "run")
    (part,) = (folder / "wandb").glob("offline-run-*")
    shutil.copytree(part, part.with_name("offline-run-29991231_000000-again"))  # the same steps again
    (once,), (twice,) = offline_runs(run_folder), offline_runs(folder)
    assert once == twice


def test_a_corrupted_or_missing_file_is_named(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{tmp_path}: contains no offline W&B run"):
        offline_runs(tmp_path)
    folder = shutil.copytree(run_folder, tmp_path / "run")
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    content = bytearray(path.read_bytes())
    content[20:200] = b"\xff" * 180
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"\.wandb: cannot be read \("):
        offline_runs(folder)


def test_runs_on_the_server_are_read_through_its_api() -> None:
    rows = [{"trainer/global_step": 3, "val/cer": 0.5, "_step": 0}, {"trainer/global_step": 7, "val/cer": 0.25}]
    run = SimpleNamespace(
        name="a",
        group=None,
        tags=["t"],
        config={"seed": 1},
        summary={"test_cer": 0.2, "_runtime": 9},
        scan_history=lambda: rows,
    )
    (found,) = online_runs("me/htr", SimpleNamespace(runs=lambda path: [run]))
    assert found.curves == {"val/cer": ([3, 7], [0.5, 0.25])}
    assert (found.config, found.summary, found.group, found.tags) == ({"seed": 1}, {"test_cer": 0.2}, "", ["t"])


def test_a_project_that_the_server_does_not_know_is_named() -> None:
    def refuse(path: str) -> list:
        raise ValueError("Could not find project htr")

    with pytest.raises(InputError, match="me/htr: Could not find project htr; check ENTITY/PROJECT"):
        online_runs("me/htr", SimpleNamespace(runs=refuse))
