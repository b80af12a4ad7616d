"""The lines to review are those below the threshold, whether they were read now or by an interrupted command."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from htr_lightning.data.reader.synthetic import Synthetic
from htr_lightning.reading.review import Review


@pytest.fixture
def lines(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{n}.png" for n in range(5)]
    for path, sample in zip(paths, Synthetic("test", {"test": 5}, {"test": 2}), strict=True):
        assert cv2.imwrite(str(path), sample.image)
    return paths


def test_lines_are_listed_least_sure_first_with_their_weakest_words() -> None:
    review = Review(0.8)
    words = [{"text": text, "confidence": score} for text, score in (("a", 0.9), ("b", 0.1), ("c", 0.5), ("d", 0.4))]
    for id, confidence in (("x", 0.7), ("y", 0.8), ("z", 0.2)):
        review.add({"id": id, "confidence": confidence, "words": words})
    review.add({"id": "unreadable", "confidence": None})
    assert review.report() == [
        "z  0.20  weakest: b 0.10, d 0.40, c 0.50",
        "x  0.70  weakest: b 0.10, d 0.40, c 0.50",
        "to review: 2 of 3 lines (66.7%) below 0.8",
    ]
    assert Review(0.5).report() == ["to review: 0 of 0 lines (0.0%) below 0.5"]


@pytest.mark.parametrize("form", ["text", "tsv", "jsonl", "page"])
def test_the_list_has_every_line_below_the_threshold(form: str, best: Path, htr, lines, tmp_path: Path) -> None:
    read = [json.loads(row) for row in htr("transcribe", best, *lines, "--format", "jsonl").stdout.splitlines()]
    assert not any("words" in row for row in read)
    limit = sorted(row["confidence"] for row in read)[2] + 1e-5
    out = ["--out", tmp_path / "out"] if form == "page" else []
    outcome = htr("transcribe", best, *lines, "--format", form, "--review-below", limit, *out)
    assert outcome.code == 0, outcome.stderr
    *listed, last = outcome.stderr.splitlines()
    expected = sorted((row for row in read if row["confidence"] < limit), key=lambda row: row["confidence"])
    assert [row.split("  ")[0] for row in listed] == [row["file"] for row in expected]
    assert last == f"to review: {len(expected)} of 5 lines ({len(expected) / 5:.1%}) below {limit:g}"
    if form == "jsonl":
        rows = [json.loads(row) for row in outcome.stdout.splitlines()]
        assert [row["text"] for row in rows] == [row["text"] for row in read]
        for row in rows:
            assert [word["text"] for word in row["words"]] == row["text"].split()
            assert len(row["characters"]) == len(row["text"])


@pytest.mark.parametrize("form", ["tsv", "jsonl"])
def test_a_resumed_command_lists_all_lines(form: str, best: Path, htr, lines, tmp_path: Path) -> None:
    options = ["--format", form, "--out", tmp_path / "out", "--skip-existing", "--review-below", "1"]
    assert "of 2 lines" in htr("transcribe", best, *lines[:2], *options).stderr
    outcome = htr("transcribe", best, *lines, *options)
    assert outcome.code == 0, outcome.stderr
    assert re.search(r"to review: 5 of 5 lines", outcome.stderr)


def test_options_that_would_do_nothing_are_refused(best: Path, htr, lines) -> None:
    for arguments, message in (
        (["--confidences"], "--format text has none of words and characters; add --format jsonl"),
        (["--review-below", "0.5", "--workers", "2", "--format", "jsonl", "--out", "x"], "--review-below 0.5"),
    ):
        outcome = htr("transcribe", best, *lines, *arguments)
        assert outcome.code == 1
        assert message in outcome.stderr
        assert outcome.stderr.count("\n") == 1


def test_parts_contain_confidences_if_they_are_asked_for(best: Path, htr, lines, tmp_path: Path) -> None:
    outcome = htr("transcribe", best, *lines, "--confidences", "--format", "parquet", "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.stderr
    from pyarrow import parquet

    rows = [
        row for path in sorted((tmp_path / "out").glob("*.parquet")) for row in parquet.read_table(path).to_pylist()
    ]
    assert len(rows) == 5
    for row in rows:
        assert [word["text"] for word in row["words"]] == row["text"].split()
        assert len(row["characters"]) == len(row["text"])
        assert np.all(np.array(row["characters"]) <= 1)
