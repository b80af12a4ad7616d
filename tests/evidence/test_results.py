"""The data of a folder of results are found again by its overrides, which come from whoever wrote the folder."""

import json
from pathlib import Path

import pytest

import htr_lightning
from htr_lightning.build import data_for
from htr_lightning.card import describe
from htr_lightning.evidence.results import open_results
from htr_lightning.transcription import Prediction

EMPTY = json.dumps(Prediction("1", "", "", 1.0, "")._asdict())
COPY = "{_target_: shutil.copyfile, src: /etc/hostname, dst: PLACE}"


@pytest.mark.parametrize(
    "overrides",
    [
        ["data=synthetic", "~data.reader", f"+data.reader={COPY}"],
        ["data=synthetic", f"data.reader={COPY}"],
        ["data=synthetic", "data.reader._target_=shutil.copyfile"],
        ["data=synthetic", "data.root=${new_folder:PLACE}"],
        ["data=synthetic", r"data.root=$\{new_folder:PLACE\}"],
        ["data=../synthetic"],
        ["data=huggingface", "data.repo=a/b"],
    ],
)
def test_the_overrides_in_a_folder_of_results_call_nothing(overrides: list[str], tmp_path: Path) -> None:
    place = tmp_path / "written"
    given = [one.replace("PLACE", str(place)) for one in overrides]
    (tmp_path / "predictions.jsonl").write_text(EMPTY)
    (tmp_path / "metrics.json").write_text(json.dumps({"checkpoint": "latin-modern", "overrides": given}))
    results = open_results(tmp_path)
    assert results.reader is None
    assert results.note.startswith("metrics.json: ")
    assert not place.exists()


def test_the_overrides_in_a_folder_of_results_choose_data(tmp_path: Path) -> None:
    given = ["data=synthetic", "data.reader.lines={train: 2, val: 2, test: 2}"]
    recognizer = htr_lightning.load("latin-modern").transcriber
    about = {"checkpoint": "latin-modern", "overrides": given, "data": describe(data_for(recognizer, given), "test")}
    (tmp_path / "predictions.jsonl").write_text(EMPTY)
    (tmp_path / "metrics.json").write_text(json.dumps(about))
    results = open_results(tmp_path)
    assert results.reader is not None, results.note
    assert len(results.reader) == 2
