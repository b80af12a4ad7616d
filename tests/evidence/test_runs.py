"""Finished and unfinished run folders are loaded and compared."""

import json
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pytest
import yaml

from htr_lightning import checkpoint
from htr_lightning.build import data_for
from htr_lightning.data.reader.synthetic import Synthetic
from htr_lightning.errors import InputError
from htr_lightning.evidence import runs as report
from htr_lightning.evidence.evaluate import evaluate, write
from htr_lightning.transcription import Prediction


def written(folder: Path, overrides: list[str], seed: int = 0, cer: dict[int, float] | None = None, **summary) -> Path:
    """Write a minimal run folder like those of train.py."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump({"seed": seed}))
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump([*overrides, f"seed={seed}"]))
    if cer is not None:
        rows = "".join(f"0,{step},,{value}\n0,{step},0.5,\n" for step, value in cer.items())
        (folder / "metrics.csv").write_text(f"epoch,step,train/loss,val/cer\n{rows}")
    if summary:
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_a_run_folder_is_loaded(run_folder: Path) -> None:
    run = report.read_run(run_folder)
    assert run.missing == []
    assert run.seed == 0
    assert run.checkpoint.is_file()
    assert run.curves["val/cer"].steps == sorted(run.curves["val/cer"].steps)
    assert len(run.curves["val/cer"].steps) == 2  # epochs
    assert min(run.curves["val/cer"].values) == pytest.approx(run.summary["val_cer"])
    assert report.find_runs(run_folder.parent) == [run]


def test_runs_from_different_checkpoints_are_different_recipes(tmp_path: Path) -> None:
    folders = [written(tmp_path / f"run{number}", ["data=x"], seed=number) for number in range(3)]
    for folder, start in zip(folders, ("a.ckpt", "b.ckpt", "a.ckpt"), strict=True):
        (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump({"seed": 0, "start": start}))
    recipes = report.by_recipe(report.find_runs(tmp_path))
    assert {name: len(runs) for name, runs in recipes.items()} == {"start=a.ckpt": 2, "start=b.ckpt": 1}


def test_binary_predictions_are_rejected_with_the_file_name(tmp_path: Path) -> None:
    (tmp_path / "predictions.jsonl").write_bytes(b'{"id": "\xe9"}')
    with pytest.raises(InputError, match=r"predictions\.jsonl: is corrupted"):
        report.predictions(tmp_path / "predictions.jsonl")


@pytest.mark.parametrize(
    "row", ["[" * 100_000, "1", "{}", '{"id": 1, "reference": "", "hypothesis": "", "confidence": 1, "group": ""}']
)
def test_a_prediction_of_another_form_is_named_by_its_line(tmp_path: Path, row: str) -> None:
    valid = '{"id": "1", "reference": "", "hypothesis": "", "confidence": 1, "group": ""}'
    (tmp_path / "predictions.jsonl").write_text(f"{valid}\n{row}\n")
    with pytest.raises(InputError, match="line 2 is not a valid prediction"):
        report.predictions(tmp_path / "predictions.jsonl")


def test_an_unfinished_run_lists_its_missing_files(tmp_path: Path) -> None:
    run = report.read_run(written(tmp_path / "run", [], cer={10: 0.5}))
    assert run.missing == ["summary.json", "checkpoints/best.ckpt"]
    assert run.curves["val/cer"] == report.Curve([10], [0.5])
    assert report.read_run(written(tmp_path / "none", [])).curves == {}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.csv", "epoch,step,val/cer\n0,ten,0.5\n", "metrics.csv: is corrupted"),
        ("metrics.csv", "epoch,step,val/cer\n0,1\n", "a row is truncated"),
        ("metrics.csv", "x" * 1_000_000, "metrics.csv: is corrupted"),
        ("summary.json", "{", "summary.json: is corrupted"),
        ("summary.json", "[" * 100_000, "summary.json: is corrupted"),
        ("summary.json", "[]", "summary.json: is corrupted \\(not the results of a run"),
        ("summary.json", '{"val_cer": {}}', "summary.json: is corrupted \\(val_cer is not a number"),
        (".hydra/config.yaml", "a: [", "config.yaml: invalid YAML"),
        (".hydra/config.yaml", "seed: {}", "does not contain a valid config"),
        (".hydra/overrides.yaml", "1", "does not contain a valid config"),
    ],
)
def test_a_corrupted_file_is_named_in_one_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    folder = written(tmp_path / "run", [], cer={1: 0.5}, val_cer=0.5)
    (folder / name).write_text(content)
    with pytest.raises(InputError, match=message) as error:
        report.read_run(folder)
    assert "\n" not in str(error.value)


def test_a_folder_without_runs_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"contains no run"):
        report.find_runs(tmp_path)
    with pytest.raises(InputError, match=r"config\.yaml: cannot be read \(No such file"):
        report.read_run(tmp_path)


def test_runs_that_differ_only_in_their_seed_are_one_recipe(tmp_path: Path) -> None:
    for number, (hidden, seed) in enumerate([(16, 0), (16, 1), (128, 0)]):
        own = ["model=mlp", f"model.net.hidden=[{hidden}]", f"name=run{number}"]
        written(tmp_path / str(number), own[:: -1 if number else 1], seed)
    recipes = report.by_recipe(report.find_runs(tmp_path))
    named = {name: [run.folder.name for run in runs] for name, runs in recipes.items()}
    assert named == {"model.net.hidden=[16]": ["0", "1"], "model.net.hidden=[128]": ["2"]}
    assert list(report.by_recipe(recipes["model.net.hidden=[16]"])) == ["model.net.hidden=[16] model=mlp"]
    written(tmp_path / "more" / "plain", [])
    assert list(report.by_recipe(report.find_runs(tmp_path / "more"))) == ["default"]


def test_data_paths_name_recipes_only_if_nothing_else_distinguishes_them(tmp_path: Path) -> None:
    written(tmp_path / "0", ["data=x", "data.root=/a"])
    written(tmp_path / "1", ["data=y", "data.root=/b", "replay.root=/c"])
    assert list(report.by_recipe(report.find_runs(tmp_path))) == ["data=x", "data=y"]
    written(tmp_path / "2", ["data=y", "data.root=/d"])
    assert set(report.by_recipe(report.find_runs(tmp_path))) == {
        "data=x", "data.root=/b data=y replay.root=/c", "data.root=/d data=y",
    }  # fmt: skip


def test_a_band_is_the_mean_and_sd_at_steps_that_all_runs_logged(tmp_path: Path) -> None:
    written(tmp_path / "a", [], 0, {10: 0.8, 20: 0.5, 30: 0.4})
    written(tmp_path / "b", [], 1, {10: 0.6, 20: 0.3})
    written(tmp_path / "c", [], 2)
    band = report.band(report.find_runs(tmp_path), "val/cer")
    assert (band.steps, band.runs) == ([10, 20], 2)
    assert band.mean == pytest.approx([0.7, 0.4])
    assert band.sd == pytest.approx([stdev([0.8, 0.6]), stdev([0.5, 0.3])])
    alone = report.band([report.read_run(tmp_path / "a")], "val/cer")
    assert alone == report.Band([10, 20, 30], [0.8, 0.5, 0.4], [0, 0, 0], 1)
    assert report.band([], "val/cer") == report.Band([], [], [], 0)


def test_recipes_are_compared(tmp_path: Path) -> None:
    counts = {"test_characters": 100, "test_lines": 10, "seconds": 60.0}
    written(tmp_path / "a", ["x=1"], 0, val_cer=0.2, test_cer=0.3, test_edits=30, **counts)
    written(tmp_path / "b", ["x=1"], 1, val_cer=0.4, test_cer=0.1, test_edits=10, **counts)
    written(tmp_path / "c", ["x=1"], 2)
    written(tmp_path / "d", ["x=2"], 0, val_cer=0.1, test_cer=0.2, test_edits=20, **counts)
    written(tmp_path / "e", ["x=3"], 0)
    written(tmp_path / "f", ["x=4"], 0, val_loss=0.2, test_loss=0.1, seconds=1.0)  # logs no error rates
    best, second = report.compare(report.by_recipe(report.find_runs(tmp_path)))
    assert best == report.Row("x=2", 1, 0, 0.1, 0, 0.2, 0, 20, 100, 10, 60.0)
    assert second[:3] == ("x=1", 2, 1)
    assert second[3:7] == pytest.approx((mean([0.2, 0.4]), stdev([0.2, 0.4]), 0.2, stdev([0.3, 0.1])))
    assert second[7:] == (40, 200, 20, 60.0)
    table = report.markdown([best, second]).splitlines()
    assert len({line.count("|") for line in table}) == 1
    assert table[2] == "| `x=2` | 1 | 10.00% | 20.00% | 20 / 100 | 10 | 60 s |"
    assert "2 (+ 1 unfinished)" in table[3]


def test_predictions_are_read_back(best: Path, tmp_path: Path) -> None:
    recognizer = checkpoint.load(best)
    data = data_for(recognizer)
    read, _ = found = evaluate(recognizer, data)
    write(tmp_path, found, {})
    back = report.predictions(tmp_path / "predictions.jsonl")
    assert [one[:5] for one in back] == [one[:5] for one in read]
    for level in ("words", "characters"):
        assert [getattr(one, level) for one in back] == [
            pytest.approx(getattr(one, level), abs=5e-7)
            for one in read  # of 6 digits
        ]
    image = report.images(data.lines("test").reader, [read[3].id])[0]
    assert np.array_equal(image, data.lines("test").reader[3].image)


def test_invalid_predictions_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"create it with htr evaluate CHECKPOINT"):
        report.predictions(tmp_path / "predictions.jsonl")
    path = tmp_path / "predictions.jsonl"
    good = json.dumps(Prediction("a", "b", "c", 0.5, "g")._asdict())
    for bad in ("{", "[1]", '{"id": "a"}', "7"):
        path.write_text(f"{good}\n{bad}\n")
        with pytest.raises(InputError, match=r"line 2 is not a valid prediction"):
            report.predictions(path)


def test_a_line_missing_from_the_data_is_named() -> None:
    with pytest.raises(InputError, match=r"other/7: not found among 4 lines"):
        report.images(Synthetic("test", {"test": 4}, {"test": 2}), ["synthetic/test/1", "other/7"])


def test_links_to_runs_are_followed_and_each_run_counts_once(tmp_path: Path) -> None:
    written(tmp_path / "disk" / "run", ["data=x"])
    written(tmp_path / "runs" / ".ipynb_checkpoints" / "run", ["data=x"])
    written(tmp_path / "runs" / "own", ["data=x"], seed=1)
    (tmp_path / "runs" / "a").symlink_to(tmp_path / "disk")
    (tmp_path / "runs" / "b").symlink_to(tmp_path / "disk")
    for name in ("x", "y"):  # circles
        (tmp_path / "runs" / name).symlink_to(tmp_path / "runs")
    assert [run.seed for run in report.find_runs(tmp_path / "runs", tmp_path / "disk")] == [0, 1]
