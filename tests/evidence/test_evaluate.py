"""Evaluation uses the data of the run by default and reads scans as training did."""

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import Outcome, run_train

from htr_lightning import checkpoint
from htr_lightning.build import data_for
from htr_lightning.data.preprocess import FitHeight
from htr_lightning.data.reader.page_xml import PageXml
from htr_lightning.evidence.evaluate import evaluate_reader
from htr_lightning.metrics.conventions import CONVENTIONS
from htr_lightning.model.base import Recognizer
from htr_lightning.model.ctc import CTCRecognizer
from htr_lightning.reading.sources import find_sources
from htr_lightning.reading.transcribe import open_lines
from htr_lightning.reading.voting import Ensemble


@pytest.fixture
def trained(best: Path) -> Recognizer:
    recognizer = checkpoint.load(best)
    recognizer.card["training"]["data"] |= {"root": "old", "repo": None, "pack": "old.htr"}
    return recognizer


def test_the_default_data_are_those_of_the_training_run(trained: Recognizer) -> None:
    data = data_for(trained)
    assert (data.root, data.pack) == ("old", "old.htr")


def test_other_data_are_not_read_from_the_packed_file_of_the_run(trained: Recognizer) -> None:
    data = data_for(trained, ["data.root=new"])
    assert (data.root, data.pack) == ("new", None)
    data = data_for(trained, ["data.root=new", "data.pack=new.htr"])
    assert (data.root, data.pack) == ("new", "new.htr")
    data = data_for(trained, ["data.repo=a/b"])
    assert (data.root, data.repo, data.pack) == (None, "a/b", None)


def test_data_named_in_a_checkpoint_are_not_downloaded(trained: Recognizer) -> None:
    own = trained.card["training"]["data"]
    own |= {"repo": "a/b", "pack": None}
    assert data_for(trained).repo == "a/b"  # beside a root it is a name
    own["root"] = None
    assert data_for(trained).repo is None


def test_scans_are_reduced_once_unless_members_differ_in_height(best: Path, tmp_path: Path) -> None:
    def reduce_scans(heights: list[int]) -> bool:
        members = [checkpoint.load(best) for _ in heights]
        for member, height in zip(members, heights, strict=True):
            member.preprocess = FitHeight(height)
        return data_for(Ensemble(members, ["a", "b"]), ["data=page_xml", f"data.root={tmp_path}"]).reduce_scans

    assert reduce_scans([32, 32])
    assert not reduce_scans([32, 64])
    assert not reduce_scans([64, 32])


def test_page_lines_are_evaluated_as_the_reader_returns_them(
    make_recognizer: Callable[..., CTCRecognizer], htr_data: Path, tmp_path: Path
) -> None:
    for name in ("alto/wikitexte_0007.xml", "jpg/wikitexte_0007.jpg"):
        shutil.copy(htr_data / "copiste" / name, tmp_path)
    recognizer = make_recognizer()
    reader = PageXml(tmp_path, rotate="reading", reduce=recognizer.preprocess.reduce)
    ((source,), _, _) = find_sources([str(tmp_path)])
    lines = list(open_lines(source))
    assert len(lines) == len(reader) > 5
    assert sum(image.shape[0] > 64 for _, image in lines) > 5
    for (_, scan), sample in zip(lines, reader, strict=True):
        assert sample.image.shape[0] <= 64
        assert torch.equal(recognizer.prepare_batch([scan])[0], recognizer.prepare_batch([sample.image])[0])


def test_evaluation_batches_may_be_larger_than_training_batches(trained: Recognizer) -> None:
    assert trained.card["training"]["data"]["max_lines"] == 8
    for more, lines in (([], 32), (["data=copiste"], 32), (["data.max_lines=5"], 5)):
        assert data_for(trained, more).max_lines == lines


def test_the_accuracy_of_a_classifier_is_printed(tmp_path: Path, htr: Callable[..., Outcome]) -> None:
    for split in ("train", "val", "test"):
        for digit in "017":
            (folder := tmp_path / "digits" / split / digit).mkdir(parents=True)
            for number in range(4):
                image = np.full((40, 30), 230, np.uint8)
                cv2.putText(image, digit, (4 + number, 32), cv2.FONT_HERSHEY_SIMPLEX, 1, 20, 2)
                cv2.imwrite(str(folder / f"{number}.png"), image)
    given = ["model=mlp", "data=characters", f"data.root={tmp_path / 'digits'}", "data.workers=0"]
    limits = ["trainer.max_time=null", "trainer.max_epochs=2", "trainer.val_check_interval=1.0"]
    run = run_train(tmp_path / "run", *given, *limits, "trainer.check_val_every_n_epoch=1")
    done = htr("evaluate", run / "checkpoints" / "best.ckpt", "--out", tmp_path / "out")
    assert done.code == 0, done.stderr
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["line_accuracy"] == pytest.approx(1 - metrics["cer"])
    assert done.stdout.startswith(f"accuracy {metrics['line_accuracy']:.2%}  CER {metrics['cer']:.2%} [")


def test_a_figure_comes_with_all_that_it_depends_on(
    best: Path, run_folder: Path, tmp_path: Path, htr: Callable[..., Outcome]
) -> None:
    done = htr("evaluate", best, "--out", tmp_path, "--greedy", "--conventions")
    assert done.code == 0, done.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    summary = json.loads((run_folder / "summary.json").read_text())
    assert metrics["checkpoint_sha256"] == sha256(best.read_bytes()).hexdigest() == summary["card"]["checkpoint_sha256"]
    shared = ("split", "data", "definition", "normalizer", "seed", "versions", "language_model", "commit")
    assert {key: metrics[key] for key in shared} == {key: summary["card"][key] for key in shared}
    assert (metrics["split"], metrics["seed"], metrics["decoder"]) == ("test", 0, "greedy")
    assert summary["card"]["decoder"]["_target_"].endswith(".Greedy")
    assert (metrics["data"]["lines"], metrics["data"]["groups"]) == (24, 3)
    assert metrics["hardware"]["processor"] == summary["card"]["hardware"]["processor"] != ""
    for clock in (metrics["clock"], summary["card"]["clock"]):
        assert clock["seconds"] > 0
        assert datetime.fromisoformat(clock["started"]) <= datetime.now(UTC)
    for rate in ("cer", "wer"):
        interval = metrics[f"{rate}_interval"]
        assert interval == summary[f"test_{rate}_interval"]
        assert interval["low"] <= metrics[rate] <= interval["high"]  # equal where no word is read
        assert (
            f"{rate.upper()} {metrics[rate]:.2%} [{100 * interval['low']:.2f}, {100 * interval['high']:.2f}]"
            in done.stdout
        )
    found = evaluate_reader(best)
    assert found.intervals.to_plain()["cer_interval"] == metrics["cer_interval"]
    assert {name: its["value"] for name, its in metrics["conventions"].items()} == found.conventions
    assert all(f"{name} " in done.stdout for name in CONVENTIONS)
    log = (run_folder / "train.log").read_text()
    low, high = (100 * metrics["cer_interval"][key] for key in ("low", "high"))
    assert f"95% interval        [{low:.2f}, {high:.2f}] / [" in log
