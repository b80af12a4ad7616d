"""Kept lines are written with the same pixels and can be read back; every line is counted."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import SMALL, Outcome, run_train

from htr_lightning import checkpoint
from htr_lightning.adapt.pseudo_label import EMPTY, KEPT, UNREADABLE, UNSURE, PseudoLabel, select
from htr_lightning.build import data_for
from htr_lightning.data.reader.folder import Folder
from htr_lightning.data.reader.listing import Pairs
from htr_lightning.evidence.evaluate import evaluate
from htr_lightning.reading.sources import find_sources
from htr_lightning.reading.transcribe import open_lines

LABELS = [PseudoLabel("a", "g", "x", 0.9), PseudoLabel("b", "g", "y", 0.5), PseudoLabel("c", "g", "", 1.0, EMPTY),
          PseudoLabel("d", "g", "z", 0.9), PseudoLabel("e", "g", "", 0.0, UNREADABLE)]  # fmt: skip


def kept(labels: list[PseudoLabel]) -> list[str]:
    return [label.id for label in labels if label.status == KEPT]


@pytest.mark.parametrize(
    ("min_confidence", "fraction", "expected"),
    [
        (0.9, None, ["a", "d"]),
        (0.91, None, []),
        (0.0, None, ["a", "b", "d"]),
        (None, 1.0, ["a", "b", "d"]),
        (None, 0.4, ["a", "d"]),
        (None, 0.2, ["a"]),
        (0.6, 1.0, ["a", "d"]),
    ],
)
def test_confident_lines_are_selected(
    min_confidence: float | None, fraction: float | None, expected: list[str]
) -> None:
    selected = select(LABELS, min_confidence, fraction)
    assert kept(selected) == expected
    assert [(g.id, g.text, g.confidence) for g in selected] == [(g.id, g.text, g.confidence) for g in LABELS]
    assert [g.status for g in selected if g.id in "ce"] == [EMPTY, UNREADABLE]
    assert {g.status for g in selected if g.id in "abd" and g.id not in expected} <= {UNSURE}


def rows(folder: Path, table: str) -> list[dict[str, str]]:
    with open(folder / table, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def read_back(folder: Path, split: str = "train") -> Folder:
    return Folder(folder, split, listing=Pairs([".png"]), splits={s: s for s in ("train", "val", "test")})


def test_kept_lines_are_written_with_their_pixels_and_transcriptions(
    htr: Callable[..., Outcome], best: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    outcome = htr("pseudo-label", best, "data.subset=[40,null]", "--fraction", 0.5, "--out", out)
    assert outcome.code == 0, outcome.stderr
    recognizer = checkpoint.load(best)
    data = data_for(recognizer, ["data.subset=[40,null]"])
    read = {p.id: p for p in evaluate(recognizer, data, "train")[0]}
    images = {sample.id: sample.image for sample in data.lines("train").reader}
    written = read_back(out)
    names = {row["name"]: row["id"] for row in rows(out, "names.tsv")}
    assert len(read) == 56
    assert 0 < len(written) == len(names) <= 28
    for sample in written:
        id = names[sample.id.rpartition("/")[2]]
        assert sample.text == read[id].hypothesis
        assert sample.text.strip()
        assert np.array_equal(sample.image, images[id])
    lowest = min(read[id].confidence for id in names.values())
    empty = sum(not p.hypothesis for p in read.values())
    assert all(p.confidence <= lowest for id, p in read.items() if id not in names.values() and p.hypothesis)
    record = json.loads((out / "pseudo.json").read_text())
    assert record["lines"] == sum(record["status"].values()) == 56
    assert record["status"].get(KEPT) == len(written)
    assert record["status"].get(EMPTY, 0) == empty
    assert f"56 unlabelled lines (kept: {len(written)}" in outcome.stdout
    assert {row["id"] for row in rows(out, "pseudo_labels.tsv")} == set(read)


def test_files_without_text_are_transcribed_and_unreadable_files_are_counted(
    htr: Callable[..., Outcome], best: Path, tmp_path: Path, line_image: Path, write_page: Callable[..., Path]
) -> None:
    folder = tmp_path / "scans"
    write_page(folder, ["", "\u6f22"])  # one of two lines has a text, whose characters are not in the alphabet
    line_image.rename(folder / "line.png")
    (folder / "broken.png").write_bytes(b"no image")
    cv2.imwrite(str(folder / "sheet.png"), np.full((1200, 900), 255, np.uint8))
    out = tmp_path / "out"
    outcome = htr("pseudo-label", best, folder, "--min-confidence", 0, "--out", out)
    assert outcome.code == 0, outcome.stderr
    statuses = {Path(row["id"]).name: row["status"] for row in rows(out, "pseudo_labels.tsv")}
    assert set(statuses) == {"page.xml#l0", "page.xml#l1", "line.png", "broken.png", "sheet.png"}
    assert (statuses["broken.png"], statuses["sheet.png"]) == (UNREADABLE, EMPTY)
    assert {statuses["line.png"], statuses["page.xml#l0"]} <= {KEPT, EMPTY}
    assert KEPT in statuses.values()
    assert "note: the existing text is ignored in 1 of 5 lines" in outcome.stderr
    texts = {row["id"]: row["text"] for row in rows(out, "pseudo_labels.tsv")}
    names = {row["name"]: row["id"] for row in rows(out, "names.tsv")}
    images = {reading.name: image for source in find_sources([str(folder)])[0] for reading, image in open_lines(source)}
    assert len(read_back(out)) == list(statuses.values()).count(KEPT)
    for sample in read_back(out):
        id = names[sample.id.rpartition("/")[2]]
        assert sample.text == texts[id] != ""
        assert np.array_equal(sample.image, images[id])


@pytest.mark.parametrize("empty", ["error", "skip"])
def test_a_page_reader_accepts_lines_without_text(
    htr: Callable[..., Outcome], best: Path, tmp_path: Path, write_page: Callable[..., Path], empty: str
) -> None:
    page = write_page(tmp_path / "pages", ["un", "deux", "dix"])
    page.write_text(re.sub("<TextEquiv>.*?</TextEquiv>", "", page.read_text()))
    given = ["data=page_xml", f"data.root={tmp_path / 'pages'}", "data.reader.splits=null"]
    given.append(f"data.reader.empty={empty}")
    outcome = htr("pseudo-label", best, *given, "--min-confidence", 0, "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout.startswith("3 unlabelled lines (")


def test_labelled_lines_are_written_as_well_and_the_result_can_be_trained_on(
    htr: Callable[..., Outcome], best: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    given = ["data.subset=[40,null]", "--labelled", "data.subset=[0,40]", "--fraction", 0.25]
    outcome = htr("pseudo-label", best, *given, "--out", out)
    assert outcome.code == 0, outcome.stderr
    labelled = data_for(checkpoint.load(best), ["data.subset=[0,40]"])
    count = json.loads((out / "pseudo.json").read_text())["status"][KEPT]
    assert [len(read_back(out, split)) for split in ("train", "val", "test")] == [count + 40, 16, 24]
    assert sorted(read_back(out, "val").texts) == sorted(labelled.lines("val").texts)
    small = [one for one in SMALL if "data.reader" not in one]
    folder = run_train(
        tmp_path / "run", *small, "data=folder", f"data.root={out}", f"start={best}", "trainer.max_steps=2"
    )
    card = checkpoint.read(folder / "checkpoints" / "best.ckpt")["htr"]
    assert card["data"]["train"]["lines"] == count + 40


def test_labelled_lines_cannot_be_pseudo_labelled(htr: Callable[..., Outcome], best: Path, tmp_path: Path) -> None:
    given = ["data.subset=[0,null]", "--labelled", "data.subset=[0,40]", "--min-confidence", 0]
    outcome = htr("pseudo-label", best, *given, "--out", tmp_path / "out")
    assert outcome.code == 1
    assert "also in the train split of the labelled data; separate the labelled and unlabelled lines" in outcome.stderr
    outcome = htr("pseudo-label", best, *given[:-2], "--split", "val", "--min-confidence", 0, "--out", tmp_path / "out")
    assert "also in the val split of the labelled data" in outcome.stderr


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["data.subset=[40,null]", "--min-confidence", "1"], "no lines to keep .*lower --min-confidence"),
        (["data.subset=[40,null]", "lines/"], "lines/: not a data override"),
        (["nowhere/"], "nowhere/: no such file or folder"),
        (["nowhere/", "--split", "val"], "files have no splits"),
    ],
)
def test_invalid_arguments_are_rejected(
    htr: Callable[..., Outcome], best: Path, tmp_path: Path, given: list[str], message: str
) -> None:
    outcome = htr("pseudo-label", best, *given, "--out", tmp_path / "out")
    assert outcome.code == 1
    assert len(outcome.stderr.strip().splitlines()) == 1
    assert re.search(message, outcome.stderr)


def test_the_card_records_the_subset(tmp_path: Path) -> None:
    folder = run_train(tmp_path / "run", *SMALL, "trainer.max_steps=1", "data.subset=[0,40]", "data.subset_by=line")
    card = checkpoint.read(folder / "checkpoints" / "best.ckpt")["htr"]
    assert card["data"]["train"]["lines"] == 40
    assert card["data"]["train"]["subset"] == {"lines": [0, 40], "by": "line", "of": 48}
