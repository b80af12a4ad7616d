"""Corrected lines are read from pages and tables, and what nobody has confirmed is left out and counted."""

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Outcome

from htr_lightning.adapt.corrected_files import NO_OUTLINE, NO_PAGE, NO_TEXT, UNCONFIRMED, read_corrections
from htr_lightning.data.corrected import Correction
from htr_lightning.data.image import read_image
from htr_lightning.errors import InputError
from htr_lightning.reading.sources import find_sources
from htr_lightning.reading.transcribe import open_lines


def read(*names: Path, **settings: Any) -> tuple[list[Correction], Counter[str]]:
    left_out = Counter[str]()
    files = read_corrections([str(name) for name in names], left_out, **settings)
    return [one for several in files for one in several], left_out


def test_the_confirmed_lines_of_pages(write_page: Callable[..., Path], tmp_path: Path) -> None:
    xml = write_page(tmp_path, ["un", "deux", "", "trois"])
    content = xml.read_text().replace("<TextEquiv><Unicode>deux", '<TextEquiv conf="0.8"><Unicode>deux')
    xml.write_text(content.replace("<TextEquiv><Unicode>trois", '<TextEquiv conf="1.0000"><Unicode>trois'))
    found, left_out = read(tmp_path)
    assert [(one.source, one.line, one.text, one.group) for one in found] == [
        ("page.xml", "l0", "un", ""), ("page.xml", "l3", "trois", "")]  # fmt: skip
    assert left_out == {UNCONFIRMED: 1, NO_TEXT: 1}
    images = [image for _, image in open_lines(find_sources([str(xml)]).sources[0])]
    for one, image in zip(found, (images[0], images[3]), strict=True):  # as a reader sees them
        assert np.array_equal(one.image, image)
    everything = read(xml, group="anna", unconfirmed=True)[0]
    assert [(one.text, one.group) for one in everything] == [("un", "anna"), ("deux", "anna"), ("trois", "anna")]


def test_the_json_lines_of_the_web_page(write_page: Callable[..., Path], tmp_path: Path) -> None:
    write_page(tmp_path, ["un", "deux", "trois"])
    rows = [
        {"file": "page.xml", "line": "l0", "text": "UN", "confidence": 0.9, "recognized": "um", "confirmed": True},
        {"file": "page.xml", "line": "l1", "text": "deux", "confidence": 0.9, "confirmed": True},
        {"file": "page.xml", "line": "l2", "text": "troi", "confidence": 0.5, "confirmed": False},
    ]
    (tmp_path / "page.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, left_out = read(tmp_path / "page.jsonl")
    assert [(one.line, one.text, one.before, one.confidence) for one in found] == [
        ("l0", "UN", "um", 0.9), ("l1", "deux", "deux", 0.9)]  # fmt: skip
    assert left_out == {UNCONFIRMED: 1}


def test_tables_with_and_without_a_header(write_page: Callable[..., Path], tmp_path: Path, line_image: Path) -> None:
    write_page(tmp_path, ["un", "deux"])
    (tmp_path / "a.tsv").write_text("page.xml#l1\tDEUX\t1.0\nline.png\tligne\t\n")  # of htr transcribe
    (tmp_path / "b.csv").write_text("image,text,group\nline.png,ligne,anna\n")
    tsv, csv = (read(tmp_path / name)[0] for name in ("a.tsv", "b.csv"))
    assert [(one.source, one.line, one.text, one.confidence) for one in tsv] == [
        ("page.xml", "l1", "DEUX", 1.0), ("line.png", "", "ligne", None)]  # fmt: skip
    assert [(one.text, one.group) for one in csv] == [("ligne", "anna")]
    for one in (tsv[1], csv[0]):
        assert np.array_equal(one.image, read_image(line_image))


def test_rows_of_a_table_that_are_as_a_recognizer_wrote_them_are_left_out(
    write_page: Callable[..., Path], tmp_path: Path
) -> None:
    write_page(tmp_path, ["un", "deux", "trois", "quatre"])
    rows = [
        {"file": "page.xml", "line": "l0", "text": "machine", "confidence": 0.98},
        {"file": "page.xml", "line": "l1", "text": "deux", "confidence": 1.0},
        {"file": "page.xml", "line": "l2", "text": "trois", "confidence": 0.4, "confirmed": True},
        {"file": "page.xml", "line": "l3", "text": "quatre", "confidence": 0.4, "recognized": "vingt"},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, left_out = read(tmp_path / "a.jsonl")
    assert [one.text for one in found] == ["deux", "trois", "quatre"]
    assert left_out == {UNCONFIRMED: 1}
    found, left_out = read(tmp_path / "a.jsonl", unconfirmed=True)
    assert (len(found), left_out) == (4, {})
    (tmp_path / "a.tsv").write_text("page.xml#l0\tun\t0.93\npage.xml#l1\tdeux\t1.0\n")
    assert [one.text for one in read(tmp_path / "a.tsv")[0]] == ["deux"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "{", "a.jsonl:1: row is not valid JSON"),
        ("a.jsonl", '{"file": "no.png", "text": "un"}', "a.jsonl:1: no.png: not found"),
        ("a.jsonl", '{"file": 3, "text": "un"}', "a.jsonl:1: file=3 is not text"),
        ("a.jsonl", '{"text": "un"}', "a.jsonl:1: "),
        ("a.jsonl", '{"file": "page.xml", "line": "l9", "text": "un"}', "a.jsonl:1: line 'l9' is not in "),
        ("a.jsonl", '{"file": "page.xml", "text": "un"}', "a.jsonl:1: line '' is not in "),
        ("a.jsonl", '{"file": "page.xml", "line": "l0", "text": "un", "confidence": "high"}', "confidence=high"),
        ("a.tsv", "page.xml#l0\tun\t0.9\nx", "a.tsv:2: wrong number of cells"),
        ("no.xml", None, "no.xml: no such file"),
    ],
)
def test_a_bad_row_is_named(
    name: str, content: str | None, message: str, write_page: Callable[..., Path], tmp_path: Path
) -> None:
    write_page(tmp_path, ["un"])
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError) as caught:
        read(tmp_path / name)
    assert message in str(caught.value)


def test_lines_found_on_an_image_are_refused_because_they_depend_on_the_recognizer(
    write_page: Callable[..., Path], tmp_path: Path
) -> None:
    write_page(tmp_path, ["un", "deux", "trois", "quatre"]).unlink()
    (image,) = tmp_path.iterdir()
    (tmp_path / "a.tsv").write_text(f"{image.name}#line_1\tun\t1.0\n")
    with pytest.raises(InputError, match=r"a\.tsv:1: line 'line_1' cannot be found in .*; export the page as PAGE XML"):
        read(tmp_path / "a.tsv")


def test_what_has_no_text_or_outline_is_counted(
    write_page: Callable[..., Path], tmp_path: Path, line_image: Path
) -> None:
    xml = write_page(tmp_path, ["un", "deux"])
    xml.write_text(re.sub("<Coords[^>]*/><Baseline[^>]*/>", "", xml.read_text(), count=1))
    found, left_out = read(tmp_path)
    assert [one.text for one in found] == ["deux"]
    assert left_out == {NO_OUTLINE: 1, NO_PAGE: 1}


def test_what_was_stored_before_a_fault_is_told(
    write_page: Callable[..., Path], tmp_path: Path, htr: Callable[..., Outcome]
) -> None:
    write_page(tmp_path, ["un", "deux"], "a")
    write_page(tmp_path, ["trois"], "b").write_text("<PcGts><Page>")
    pages = [tmp_path / "a.xml", tmp_path / "b.xml"]
    outcome = htr("feedback", "add", tmp_path / "x.db", *pages)
    assert outcome.code == 1
    assert "b.xml: " in outcome.stderr
    assert outcome.stderr.endswith("; 2 lines of the files before it are stored, and are not added twice\n")
    write_page(tmp_path, ["trois"], "b")
    assert "3 lines accepted, 2 of them known" in htr("feedback", "add", tmp_path / "x.db", *pages).stdout
