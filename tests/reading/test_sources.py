"""Which files and pages names on the command line refer to."""

import os
import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image

from htr_lightning.reading.sources import Found, find_sources
from htr_lightning.reading.transcribe import open_lines


def names(found: Found) -> list[str]:
    return sorted(source.path.name for source in found.sources)


def test_pipes_devices_and_links_to_themselves_are_refused_by_name(tmp_path: Path) -> None:
    Image.new("L", (200, 40), 255).save(tmp_path / "line.png")
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "pipe.xml")
    (tmp_path / "loop.png").symlink_to("loop.png")
    found = find_sources([str(tmp_path / name) for name in ("line.png", "pipe.png", "pipe.xml")])
    assert names(found) == ["line.png"]
    assert found.errors == [
        f"{tmp_path}/pipe.{ending}: not a regular file; save it as a file first" for ending in ("png", "xml")
    ]
    for given in (tmp_path, tmp_path / "*.png"):
        found = find_sources([str(given)])
        assert names(found) == ["line.png", "loop.png"]
        assert not found.errors
    (_, image) = next(open_lines(found.sources[names(found).index("loop.png")]))
    assert image is None


def test_an_image_is_read_through_its_page_however_both_are_named(
    tmp_path: Path, write_page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = write_page(tmp_path / "pages")
    Image.new("L", (200, 40), 255).save(tmp_path / "pages" / "line.png")
    for given in (["pages"], ["pages/page.png", "pages/page.xml", "pages/line.png"], [str(page), "pages/*.png"]):
        found = find_sources(given)
        assert names(found) == ["line.png", "page.xml"]
        assert not found.errors
        assert not found.notes


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("layout", ["folders", "endings"])
def test_a_page_that_two_files_describe_is_an_error_and_the_others_are_read(
    tmp_path: Path, write_page, monkeypatch: pytest.MonkeyPatch, absolute: bool, layout: str
) -> None:
    root = tmp_path / "my pages"
    for stem in "ab":
        path = write_page(root, [stem], stem)
        other = root / "old" / path.name if layout == "folders" else root / f"{stem}.chocomufin.xml"
        other.parent.mkdir(exist_ok=True)
        other.write_text(
            path.read_text().replace(f"{stem}.png", f"../{stem}.png" if layout == "folders" else f"{stem}.png")
        )
    write_page(root / "old" if layout == "folders" else root, ["seul"], "c.chocomufin")
    monkeypatch.chdir(tmp_path)
    found = find_sources([str(root) if absolute else "my pages"])
    assert names(found) == ["c.chocomufin.xml"]
    (error,) = found.errors
    assert "describe the same image, a.png (pages described more than once: 2); none of them is transcribed" in error
    assert "a.xml" in error
    assert {"folders": "old/a.xml", "endings": "a.chocomufin.xml"}[layout] in error
    patterns = error.partition("e.g. with ")[2].split(" or ")
    assert patterns != [""]
    for pattern in patterns:
        (given,) = shlex.split(pattern)
        found = find_sources([given])
        assert not found.errors
        assert names(found)[-1] == "c.chocomufin.xml"
        assert len(found.sources) == 3


def test_twins_are_found_among_all_names(tmp_path: Path, write_page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_page(tmp_path, ["un"], "a")
    shutil.copy(path, tmp_path / "b.xml")
    for given in (["a.xml", "b.xml"], ["*.xml"], [str(path), "b.xml"], [".", "a.xml"]):
        found = find_sources(given)
        assert not found.sources
        assert len(found.errors) == 1
        assert "a.xml and b.xml describe the same image, a.png" in found.errors[0]
    assert names(find_sources(["a.xml", str(path), "./a.xml"])) == ["a.xml"]  # named several times, read once


def test_endings_in_upper_case_are_read_and_hidden_files_are_not(tmp_path: Path, write_page) -> None:
    for stem, ending in (("a", ".XML"), ("b", ".Xml")):
        path = write_page(tmp_path, [stem], stem)
        path.rename(path.with_suffix(ending))
    write_page(tmp_path, ["un"], "._c")
    write_page(tmp_path / ".ipynb_checkpoints", ["a"], "a")
    found = find_sources([str(tmp_path)])
    assert names(found) == ["a.XML", "b.Xml"]
    assert not found.errors


def test_a_linked_folder_is_read_and_a_circle_is_an_error(tmp_path: Path, write_page) -> None:
    write_page(tmp_path / "else", ["un"], "a")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/pages").symlink_to(tmp_path / "else", target_is_directory=True)
    assert names(find_sources([str(tmp_path / "root")])) == ["a.xml"]
    (tmp_path / "else/again").symlink_to(tmp_path / "else", target_is_directory=True)
    assert "symbolic link to a folder that contains it" in find_sources([str(tmp_path / "root")]).errors[0]


@pytest.mark.parametrize("absolute", [True, False])
def test_a_pattern_follows_links_once_and_refuses_circles(
    tmp_path: Path, write_page, monkeypatch: pytest.MonkeyPatch, absolute: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, folder in enumerate(("", "in/deep", "in/.hidden", "[1]")):
        write_page(tmp_path / "root" / folder, [str(number)], f"p{number}")
    (tmp_path / "root" / "link").symlink_to(tmp_path / "root" / "in")
    start = f"{tmp_path}/" if absolute else ""
    for pattern, expected in {
        "root/**/*.xml": ["p0", "p1", "p3"],
        "**/p?.xml": ["p0", "p1", "p3"],
        "root/in/.hidden/**": ["p2"],
        "root/in/*/*.xml": ["p1"],
        "root/link/**/p1.xml": ["p1"],
        "root/[[]1]/**/*.xml": ["p3"],
    }.items():
        found = find_sources([start + pattern])
        assert names(found) == [f"{stem}.xml" for stem in expected]
        assert all(source.path.is_absolute() == absolute for source in found.sources)
        assert not found.errors
    for name in ("x", "y"):
        (tmp_path / "root" / name).symlink_to(tmp_path / "root")
    assert "symbolic link to a folder that contains it" in find_sources([f"{start}root/**/*.xml"]).errors[0]


def test_xml_files_that_are_no_pages_are_noted_in_a_folder_and_refused_by_name(tmp_path: Path, write_page) -> None:
    write_page(tmp_path, ["un"], "a")
    for name in ("tei", "more"):
        (tmp_path / f"{name}.xml").write_text("<TEI/>")
    found = find_sources([str(tmp_path)])
    assert names(found) == ["a.xml"]
    assert not found.errors
    assert found.notes == [
        f"{tmp_path / 'more.xml'}: not transcribed: neither PAGE nor ALTO (root element <TEI>), "
        "the first of 2 such files"
    ]
    found = find_sources([str(tmp_path / "tei.xml")])
    assert found == (
        [],
        [f"{tmp_path / 'tei.xml'}: not transcribed: neither PAGE nor ALTO (root element <TEI>)"],
        [],
    )


def test_files_of_pages_that_a_mets_lists_in_another_format_are_noted(tmp_path: Path, write_page) -> None:
    for stem in "abc":
        write_page(tmp_path / "alto", [stem], stem, form="ALTO")
        write_page(tmp_path, [stem], stem)
        (tmp_path / "alto" / f"{stem}.png").unlink()
    (tmp_path / "list.xml").write_text(
        '<mets xmlns:xlink="x"><fileSec><file><FLocat xlink:href="b.xml"/></file>'
        '<file><FLocat xlink:href="a.xml"/></file></fileSec></mets>'
    )
    (tmp_path / "c.xml").unlink()
    found = find_sources([str(tmp_path)])
    assert [source.path.name for source in found.sources] == ["c.xml", "b.xml", "a.xml"]
    assert found.sources[0].path.parent.name == "alto"
    assert not found.errors
    assert found.notes == [
        f"{tmp_path / 'alto' / 'a.xml'}: not transcribed: not listed in list.xml (describes the same page as a.xml), "
        "the first of 2 such files"
    ]


def test_a_mets_that_cannot_be_used_is_an_error_and_the_pages_are_read(tmp_path: Path, write_page) -> None:
    write_page(tmp_path, ["un"], "a")
    (tmp_path / "mets.xml").write_text(
        '<mets xmlns:xlink="x"><fileSec><file><FLocat xlink:href="gone.xml"/></file></fileSec></mets>'
    )
    found = find_sources([str(tmp_path)])
    assert names(found) == ["a.xml"]
    assert len(found.errors) == 1
    assert "lists gone.xml, which is missing" in found.errors[0]


def test_files_that_a_mets_lists_for_one_page_are_an_error_also_without_images(tmp_path: Path, write_page) -> None:
    for stem in "ab":
        write_page(tmp_path, [stem], stem).with_suffix(".png").unlink()
    files = "".join(f'<file ID="{stem}"><FLocat xlink:href="{stem}.xml"/></file>' for stem in "ab")
    (tmp_path / "mets.xml").write_text(
        f'<mets xmlns:xlink="x"><fileSec>{files}</fileSec><structMap><div><fptr FILEID="a"/><fptr FILEID="b"/></div>'
        "</structMap></mets>"
    )
    found = find_sources([str(tmp_path)])
    assert not found.sources
    (error,) = found.errors
    assert "a.xml and b.xml describe the same page (pages described more than once: 1); none of them is" in error


def test_a_page_s_image_is_found_as_written(tmp_path: Path, write_page, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_page(tmp_path / "seg", ["un"], "a")
    path.write_text(path.read_text().replace("a.png", "../img/scan.png"))
    (tmp_path / "img").mkdir()
    path.with_suffix(".png").rename(tmp_path / "img/scan.png")
    monkeypatch.chdir(tmp_path / "seg")
    for given in (".", "a.xml", str(path), str(tmp_path), "../seg/*.xml"):
        (source,) = find_sources([given]).sources
        ((line, image),) = open_lines(source)
        assert line.error is None
        assert image is not None
    (tmp_path / "img/scan.png").unlink()
    (source,) = find_sources(["a.xml"]).sources
    ((line, image),) = open_lines(source)
    assert image is None
    assert "no image 'scan.png' or 'a.*' found in" in (line.error or "")
    assert "put the image there" in (line.error or "")
