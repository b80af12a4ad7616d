"""Pseudo-labels: what passes the gate is written with the same pixels and read back; nothing is empty or uncounted."""

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
from htr_lightning.adapt.pseudo_label import EMPTY, FAULT, KEPT, PAGE, UNSURE, Guess, gate
from htr_lightning.config import data_for
from htr_lightning.data.reader.folder import Folder
from htr_lightning.data.reader.listing import Pairs
from htr_lightning.evidence.evaluate import evaluate
from htr_lightning.reading.transcribe import find_sources, open_lines

GUESSES = [Guess("a", "g", "x", 0.9), Guess("b", "g", "y", 0.5), Guess("c", "g", "", 1.0, EMPTY),
           Guess("d", "g", "z", 0.9), Guess("e", "g", "", 0.0, FAULT)]  # fmt: skip


def kept(guesses: list[Guess]) -> list[str]:
    return [guess.id for guess in guesses if guess.fate == KEPT]


@pytest.mark.parametrize(
    ("least", "share", "expected"),
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
def test_the_gate(least: float | None, share: float | None, expected: list[str]) -> None:
    gated = gate(GUESSES, least, share)
    assert kept(gated) == expected
    assert [(g.id, g.text, g.confidence) for g in gated] == [(g.id, g.text, g.confidence) for g in GUESSES]
    assert [g.fate for g in gated if g.id in "ce"] == [EMPTY, FAULT]
    assert {g.fate for g in gated if g.id in "abd" and g.id not in expected} <= {UNSURE}


def rows(folder: Path, table: str) -> list[dict[str, str]]:
    with open(folder / table, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def read_back(folder: Path, split: str = "train") -> Folder:
    return Folder(folder, split, listing=Pairs([".png"]), splits={s: s for s in ("train", "val", "test")})


def test_lines_of_a_data_set_come_back_with_the_same_pixels_and_the_text_that_was_read(
    htr: Callable[..., Outcome], best: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    outcome = htr("pseudo-label", best, "data.subset=[40,null]", "--share", 0.5, "--out", out)
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
    least = min(read[id].confidence for id in names.values())
    empty = sum(not p.hypothesis for p in read.values())
    assert all(p.confidence <= least for id, p in read.items() if id not in names.values() and p.hypothesis)
    record = json.loads((out / "pseudo.json").read_text())
    assert record["lines"] == sum(record["fates"].values()) == 56
    assert record["fates"].get(KEPT) == len(written)
    assert record["fates"].get(EMPTY, 0) == empty
    assert f"56 unlabelled lines: {len(written)} kept" in outcome.stdout
    assert {row["id"] for row in rows(out, "guesses.tsv")} == set(read)


def test_files_without_any_text_are_read_and_what_cannot_be_read_is_counted(
    htr: Callable[..., Outcome], best: Path, tmp_path: Path, line_image: Path, write_page: Callable[..., Path]
) -> None:
    folder = tmp_path / "scans"
    write_page(folder, ["", "\u6f22"])  # of two lines one has a text, in letters that are not read
    line_image.rename(folder / "line.png")
    (folder / "broken.png").write_bytes(b"no image")
    cv2.imwrite(str(folder / "sheet.png"), np.full((1200, 900), 255, np.uint8))
    out = tmp_path / "out"
    outcome = htr("pseudo-label", best, folder, "--least", 0, "--out", out)
    assert outcome.code == 0, outcome.stderr
    fates = {Path(row["id"]).name: row["fate"] for row in rows(out, "guesses.tsv")}
    assert set(fates) == {"page.xml#l0", "page.xml#l1", "line.png", "broken.png", "sheet.png"}
    assert (fates["broken.png"], fates["sheet.png"]) == (FAULT, PAGE)
    assert {fates["line.png"], fates["page.xml#l0"]} <= {KEPT, EMPTY}
    assert KEPT in fates.values()
    assert "1 a page rather than a line" in outcome.stdout
    assert "note: 1 of the lines have a text, which is not looked at" in outcome.stderr
    texts = {row["id"]: row["text"] for row in rows(out, "guesses.tsv")}
    names = {row["name"]: row["id"] for row in rows(out, "names.tsv")}
    images = {reading.name: image for source in find_sources([str(folder)])[0] for reading, image in open_lines(source)}
    assert len(read_back(out)) == list(fates.values()).count(KEPT)
    for sample in read_back(out):
        id = names[sample.id.rpartition("/")[2]]
        assert sample.text == texts[id] != ""
        assert np.array_equal(sample.image, images[id])


@pytest.mark.parametrize("empty", ["error", "skip"])
def test_lines_without_text_of_a_page_reader_are_no_error(
    htr: Callable[..., Outcome], best: Path, tmp_path: Path, write_page: Callable[..., Path], empty: str
) -> None:
    write_page(tmp_path / "pages", ["", "", ""])
    given = ["data=page_xml", f"data.root={tmp_path / 'pages'}", "data.reader.splits=null"]
    given.append(f"data.reader.empty={empty}")
    outcome = htr("pseudo-label", best, *given, "--least", 0, "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout.startswith("3 unlabelled lines: ")


def test_labelled_lines_are_written_beside_and_the_whole_is_trained_on(
    htr: Callable[..., Outcome], best: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    given = ["data.subset=[40,null]", "--labelled", "data.subset=[0,40]", "--share", 0.25]
    outcome = htr("pseudo-label", best, *given, "--out", out)
    assert outcome.code == 0, outcome.stderr
    labelled = data_for(checkpoint.load(best), ["data.subset=[0,40]"])
    count = json.loads((out / "pseudo.json").read_text())["fates"][KEPT]
    assert [len(read_back(out, split)) for split in ("train", "val", "test")] == [count + 40, 16, 24]
    assert sorted(read_back(out, "val").texts) == sorted(labelled.lines("val").texts)
    small = [one for one in SMALL if "data.reader" not in one]
    folder = run_train(
        tmp_path / "run", *small, "data=folder", f"data.root={out}", f"start={best}", "trainer.max_steps=2"
    )
    card = checkpoint.read(folder / "checkpoints" / "best.ckpt")["htr"]
    assert card["data"]["train"]["lines"] == count + 40


def test_what_is_labelled_is_no_pseudo_label(htr: Callable[..., Outcome], best: Path, tmp_path: Path) -> None:
    given = ["data.subset=[0,null]", "--labelled", "data.subset=[0,40]", "--least", 0]
    outcome = htr("pseudo-label", best, *given, "--out", tmp_path / "out")
    assert outcome.code == 1
    assert "is a train line of the labelled data, too; keep them apart" in outcome.stderr
    outcome = htr("pseudo-label", best, *given[:-2], "--split", "val", "--least", 0, "--out", tmp_path / "out")
    assert "is a val line of the labelled data" in outcome.stderr


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["data.subset=[40,null]", "--least", "1"], "no line is kept .*lower --least"),
        (["data.subset=[40,null]", "lines/"], "lines/: no override of the data"),
        (["nowhere/"], "nowhere/: no such file or folder"),
        (["nowhere/", "--split", "val"], "files have no splits"),
    ],
)
def test_what_cannot_be_labelled_is_told(
    htr: Callable[..., Outcome], best: Path, tmp_path: Path, given: list[str], message: str
) -> None:
    outcome = htr("pseudo-label", best, *given, "--out", tmp_path / "out")
    assert outcome.code == 1
    assert len(outcome.stderr.strip().splitlines()) == 1
    assert re.search(message, outcome.stderr)


def test_a_part_stands_in_the_card(tmp_path: Path) -> None:
    folder = run_train(tmp_path / "run", *SMALL, "trainer.max_steps=1", "data.subset=[0,40]", "data.subset_by=line")
    card = checkpoint.read(folder / "checkpoints" / "best.ckpt")["htr"]
    assert card["data"]["train"]["lines"] == 40
    assert card["data"]["train"]["part"] == {"lines": [0, 40], "by": "line", "of": 96}
