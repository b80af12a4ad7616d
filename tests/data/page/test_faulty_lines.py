"""A line with unusable coordinates costs no other line."""

import re
from pathlib import Path

import numpy as np
import pytest

from htr_lightning.data.page.baseline import outline
from htr_lightning.data.page.document import read_page
from htr_lightning.data.reader.page_xml import PageXml
from htr_lightning.errors import InputError
from htr_lightning.reading.page_out import page_file
from htr_lightning.reading.sources import Source
from htr_lightning.reading.transcribe import open_lines
from htr_lightning.transcription import Transcription

UNUSABLE = ["NaN,NaN NaN,NaN 10,10", "2,42 238,42 238,78 2", "2,1e99 238,42 238,78", "left,top right,top right,bottom"]
UNUSABLE += [
    "2;42 238;42 238;78",
    "2,5,42,5 238,5,42,5 238,5,78,5",
    "2,42 238 42,238 78,2 78",
    "2,42 238,42 238,-inf",
    "1,2 " * 60_000,
]
USELESS = {  # well-formed coordinates that are no area on the page
    "": "line without a polygon or box",
    "100": "line without a polygon or box",
    "2,42": "polygon with 1 point",
    "2 90 100 2": "polygon with 2 points",
    "2,42 238,42 120,42": "polygon without an area",
    "300,42 330,42 330,78": "polygon outside the page",
    "-90,-42 -9,-42 -9,-7": "polygon outside the page",
}
STRAY = ["2,42 238,42 238,9999 2,78", "-9999,42 238,42 238,78", "900,42 990,42 990,78", "2,-900 238,42 238,78"]
USABLE = ["2,42 238,42 238,78 2,78", "2e0,4.2e1 2.38e2,42. +238,78.0 2,78", "-20,42 238,42 238,78 -20,78"]
COORDS = {"PAGE": r'(<Coords points=")[^"]*', "ALTO": r'(<Polygon POINTS=")[^"]*'}
BASELINE = {"PAGE": r'(<Baseline points=")[^"]*', "ALTO": r'(BASELINE=")[^"]*'}


def spoil(path: Path, pattern: str, value: str) -> None:
    """Replace a value of the second line, which is the second match of the pattern."""
    text = path.read_text(encoding="utf-8")
    second = list(re.finditer(pattern, text))[1]
    path.write_text(text[: second.start()] + second[1] + value + text[second.end() :], encoding="utf-8")


@pytest.fixture(params=["PAGE", "ALTO"])
def form(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def path(tmp_path: Path, write_page, form: str) -> Path:
    return write_page(tmp_path / "x", ["un", "deux", "trois"], "p", form)


@pytest.mark.parametrize("value", [*UNUSABLE, *USELESS])
def test_a_line_without_any_usable_coordinates_is_named_and_the_others_are_read(
    path: Path, form: str, value: str
) -> None:
    spoil(path, COORDS[form], value)
    spoil(path, BASELINE[form], "" if value in USELESS else value)
    sound = outline(read_page(path))
    assert [each.fault for each in sound] == ["", USELESS.get(value, "invalid polygon"), ""]
    if value in UNUSABLE:
        assert " ".join(value.split())[:70] in sound[1].detail
    with pytest.raises(InputError) as refusal:
        PageXml(path.parent)
    message = str(refusal.value)
    for part in ("x/p/l1", str(path), sound[1].fault, sound[1].detail, "data.reader.faulty=skip"):
        assert part in message
    assert len(message.splitlines()) == 1
    reader = PageXml(path.parent, faulty="skip")
    assert reader.texts == ["un", "trois"]
    assert [tuple(skipped) for skipped in reader.skipped] == [("x/p/l1", sound[1].fault, sound[1].detail, "faulty")]
    assert not reader.repaired


@pytest.mark.parametrize("value", UNUSABLE[:3])
def test_faults_of_one_kind_are_counted_together(path: Path, form: str, value: str) -> None:
    for other in (value, "1,nan 2,2 3,3"):
        spoil(path, COORDS[form], other)
        spoil(path, BASELINE[form], other)
        kinds = {skipped.kind for skipped in PageXml(path.parent, faulty="skip").skipped}
        assert kinds == {"invalid polygon"}


@pytest.mark.parametrize("value", UNUSABLE[:3])
def test_an_unusable_baseline_beside_a_sound_polygon_is_ignored(path: Path, form: str, value: str) -> None:
    images = [sample.image for sample in PageXml(path.parent)]
    spoil(path, BASELINE[form], value)
    reader = PageXml(path.parent)
    assert reader.repaired == {"x/p/l1": "invalid baseline, ignored"}
    for ours, theirs in zip(reader, images, strict=True):
        np.testing.assert_array_equal(ours.image, theirs)


@pytest.mark.parametrize("value", UNUSABLE[:3])
def test_an_unusable_polygon_beside_a_sound_baseline_is_replaced_as_a_missing_one_is(
    path: Path, form: str, value: str
) -> None:
    spoil(path, COORDS[form], "")
    missing = outline(read_page(path))
    spoil(path, COORDS[form], value)
    invalid = outline(read_page(path))
    assert [each.line.polygon for each in invalid] == [each.line.polygon for each in missing]
    assert [each.repaired for each in missing] == ["", "polygon created from the baseline", ""]
    assert [each.repaired for each in invalid] == ["", "invalid polygon, replaced using the baseline", ""]
    assert not any(each.fault for each in invalid)


@pytest.mark.parametrize("value", UNUSABLE[:3])
@pytest.mark.parametrize("form", ["ALTO"])
def test_an_unusable_polygon_beside_a_box_is_replaced_by_the_box(path: Path, form: str, value: str) -> None:
    sound = outline(read_page(path))
    spoil(path, r'(<TextLine ID=")', 'l1" HPOS="2" VPOS="42" WIDTH="236" HEIGHT="36" LABEL="')
    spoil(path, COORDS[form], value)
    found = outline(read_page(path))
    assert [each.line.polygon for each in found] == [each.line.polygon for each in sound]
    assert [each.repaired for each in found] == ["", "invalid polygon, replaced by the box", ""]


@pytest.mark.parametrize("value", STRAY)
def test_coordinates_far_outside_the_page_are_as_invalid(path: Path, form: str, value: str) -> None:
    images, content = [sample.image for sample in PageXml(path.parent)], path.read_bytes()
    spoil(path, BASELINE[form], value)
    reader = PageXml(path.parent)
    assert reader.repaired == {"x/p/l1": "invalid baseline, ignored"}
    for ours, theirs in zip(reader, images, strict=True):
        np.testing.assert_array_equal(ours.image, theirs)
    path.write_bytes(content)
    spoil(path, COORDS[form], value)
    assert PageXml(path.parent).repaired == {"x/p/l1": "invalid polygon, replaced using the baseline"}
    spoil(path, BASELINE[form], "")
    assert [each[2:] for each in outline(read_page(path))] == [
        ("", ""),
        ("invalid polygon", f"'{value}': outside the page"),
        ("", ""),
    ]


@pytest.mark.parametrize("value", USABLE)
def test_unusual_but_valid_coordinates_are_read(path: Path, form: str, value: str) -> None:
    images = [sample.image for sample in PageXml(path.parent)]
    spoil(path, COORDS[form], value)
    reader = PageXml(path.parent)
    assert not reader.repaired
    shapes = [(36, 236), (36, 238 if "-20" in value else 236), (36, 236)]
    assert [sample.image.shape for sample in reader] == shapes
    if "-20" not in value:
        np.testing.assert_array_equal(reader[1].image, images[1])


@pytest.mark.parametrize("size", ["nan", "abc", "1e999", "", "-5", "0", "240;80"])
def test_a_size_of_the_page_that_is_no_number_costs_no_line(path: Path, form: str, size: str) -> None:
    images = [sample.image for sample in PageXml(path.parent)]
    name = "imageWidth" if form == "PAGE" else "WIDTH"
    content = path.read_text(encoding="utf-8")
    path.write_text(re.sub(rf'(<Page [^>]*?{name}=")[^"]*', rf"\g<1>{size}", content), encoding="utf-8")
    assert read_page(path).width == 0
    for ours, theirs in zip(PageXml(path.parent), images, strict=True):
        np.testing.assert_array_equal(ours.image, theirs)


@pytest.mark.parametrize("value", UNUSABLE[:3])
def test_a_page_with_such_a_line_is_transcribed_and_written(path: Path, form: str, value: str) -> None:
    spoil(path, COORDS[form], value)
    spoil(path, BASELINE[form], value)
    source = Source(path, path.with_suffix(".png"), True)
    lines = [line for line, _ in open_lines(source)]
    assert [line.error is None for line in lines] == [True, False, True]
    assert str(lines[1].error).startswith(f"{path}#l1: invalid polygon (")
    read = [line if line.error else line._replace(transcription=Transcription("neu", 0.5)) for line in lines]
    path.write_bytes(page_file(source, read, "page"))
    assert [line.text for line in read_page(path).lines] == ["neu", "deux", "neu"]
