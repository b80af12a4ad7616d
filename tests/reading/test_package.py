"""Archives of pages are as eScriptorium and Transkribus import them: read here as these programs read them."""

import os
import posixpath
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element
from zipfile import ZipFile

import pooch
import pytest
from data.page.exchange import faults, schema, transcribed

from htr_lightning.data.page.document import read_page
from htr_lightning.data.page.page import Line
from htr_lightning.data.page.written import About
from htr_lightning.data.reader.page_xml import PageXml
from htr_lightning.errors import InputError
from htr_lightning.reading.package import check_package, write_package
from htr_lightning.reading.page_out import page_file
from htr_lightning.reading.sources import Source, find_sources
from htr_lightning.reading.transcribe import TranscribedLine
from htr_lightning.transcription import Transcription

METS, HREF = "{http://www.loc.gov/METS/}", "{http://www.w3.org/1999/xlink}href"
TEXTS = ["un mot cou-", "pé & <deux>"]
Pages = Callable[..., Path]


def pack(folder: Path, write_page: Pages, form: str, stems: str = "ab", source: str = "PAGE") -> ZipFile:
    """Write pages without a recognizer, and pack them."""
    about, pairs = About("m", exchanged=True), []
    for stem in stems:
        xml = write_page(folder / "in", ["un", "deux"], stem, form=source)
        image = xml.with_suffix(".png")
        out = folder / f"{stem}.xml"
        out.write_bytes(page_file(Source(xml, image, True), transcribed(xml, TEXTS, image), form, about))
        pairs.append((image, out))
    write_package(folder / "out.zip", pairs, form)
    return ZipFile(folder / "out.zip")


@pytest.mark.parametrize(("epoch", "year"), [("1700000000", 2023), ("0", 1980), ("9999999999", 2107)])
def test_an_archive_is_reproduced(
    epoch: str, year: int, write_page: Pages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    archive = pack(tmp_path, write_page, "page")
    before = (tmp_path / "out.zip").read_bytes()
    assert {member.date_time[0] for member in archive.infolist()} == {year}
    pairs = [(tmp_path / "in" / f"{stem}.png", tmp_path / f"{stem}.xml") for stem in "ab"]
    for image, _ in pairs:
        os.utime(image, (1e9, 1e9))
    write_package(tmp_path / "again.zip", pairs, "page")
    assert (tmp_path / "again.zip").read_bytes() == before


def listed(archive: ZipFile) -> Element:
    return ElementTree.fromstring(archive.read("mets.xml"))


@pytest.mark.parametrize("form", ["page", "alto"])
@pytest.mark.parametrize("source", ["PAGE", "ALTO"])
def test_escriptorium_finds_an_image_before_its_text_and_every_character(
    form: str, source: str, write_page: Pages, tmp_path: Path
) -> None:
    """It goes through an archive in order, by the last parts of names, and joins words or strings by spaces."""
    archive = pack(tmp_path, write_page, form, source=source)
    images, read = set(), []
    for name in map(posixpath.basename, archive.namelist()):
        stem, suffix = posixpath.splitext(name)
        if suffix == ".png":
            images.add(name)
        elif name != "mets.xml":
            root = ElementTree.fromstring(archive.read(f"{form}/{name}"))
            namespace = root.tag[: root.tag.index("}") + 1]
            if form == "page":
                image = root.find(f"{namespace}Page").get("imageFilename")
                texts = [
                    [one.text for one in line.iterfind(f"{namespace}Word/{namespace}TextEquiv/{namespace}Unicode")]
                    for line in root.iter(f"{namespace}TextLine")
                ]
            else:
                image = root.find(f".//{namespace}fileName").text
                texts = [
                    [one.get("CONTENT") for one in line.iterfind(f"{namespace}String")]
                    for line in root.iter(f"{namespace}TextLine")
                ]
            assert image == f"{stem}.png"
            assert image in images
            read.append([" ".join(words) for words in texts])
    assert read == [TEXTS, TEXTS]


def test_escriptorium_reads_the_pages_that_mets_lists(write_page: Pages, tmp_path: Path) -> None:
    archive = pack(tmp_path, write_page, "alto")
    root = listed(archive)
    files = {file.get("ID"): file.find(f"{METS}FLocat").get(HREF) for file in root.iter(f"{METS}file")}
    structure = next(one for one in root.iter(f"{METS}structMap") if one.get("TYPE") in ("physical", "PHYSICAL"))
    pages = [div for div in structure.iter(f"{METS}div") if "page" in div.get("TYPE", "")]
    found = [[files[pointer.get("FILEID")] for pointer in page.findall(f"{METS}fptr")] for page in pages]
    assert found == [["a.png", "alto/a.xml"], ["b.png", "alto/b.xml"]]
    assert {name for page in found for name in page} | {"mets.xml"} == set(archive.namelist())


def test_transkribus_reads_the_pages_that_mets_lists_and_those_of_the_folder(write_page: Pages, tmp_path: Path) -> None:
    """It reads PAGE 2013 only, from the folder page/, by the names of the images."""
    archive = pack(tmp_path, write_page, "page", source="ALTO")
    root = listed(archive)
    master = next(group for group in root.find(f"{METS}fileSec") if group.get("ID") == "MASTER")
    groups = {group.get("ID"): {file.get("ID"): file for file in group} for group in master}
    structure = next(one for one in root.iter(f"{METS}structMap") if one.get("ID") == "TRP_STRUCTMAP")
    (whole,) = structure
    assert whole.get("ID") == "TRP_DOC_DIV"
    for number, page in enumerate(whole, start=1):
        assert int(page.get("ORDER")) == number
        ids = [pointer.find(f"{METS}area").get("FILEID") for pointer in page]
        image, xml = (
            groups[kind][id].find(f"{METS}FLocat").get(HREF) for kind, id in zip(("IMG", "PAGEXML"), ids, strict=True)
        )
        assert xml == f"page/{posixpath.splitext(image)[0]}.xml"
        content = archive.read(xml)
        assert b'xmlns="http://schema.primaresearch.org/PAGE/gts/pagecontent/2013-07-15"' in content
    assert number == 2


def test_the_files_of_an_archive_are_valid(write_page: Pages, tmp_path: Path) -> None:
    from lxml import etree

    archive = pack(tmp_path, write_page, "page", source="ALTO")
    assert not faults(archive.read("page/a.xml"))
    mets = schema("mets.xsd")
    assert mets.validate(etree.fromstring(archive.read("mets.xml"))), mets.error_log


def test_right_to_left_lines_in_a_version_whose_lines_have_no_direction(write_page: Pages, tmp_path: Path) -> None:
    xml = write_page(tmp_path, TEXTS, form="ALTO")
    xml.write_text(xml.read_text().replace("<TextBlock ", '<TextBlock BASEDIRECTION="rtl" '))
    source = Source(xml, xml.with_suffix(".png"), True)
    content = page_file(source, transcribed(xml, TEXTS), "page", About(exchanged=True))
    assert not faults(content)
    xml.write_bytes(content)
    assert [line.direction for line in read_page(xml).lines] == ["right-to-left"] * 2


@pytest.mark.parametrize("form", ["page", "alto"])
def test_our_own_reader_finds_the_same_lines(form: str, write_page: Pages, tmp_path: Path) -> None:
    pack(tmp_path, write_page, form, "cab").extractall(tmp_path / "x")
    found = find_sources([str(tmp_path / "x")])
    assert not found.errors
    assert [source.path.name for source in found.sources] == ["c.xml", "a.xml", "b.xml"]  # in the order of METS
    for source in found.sources:
        assert source.image == tmp_path / "x" / f"{source.path.stem}.png"
        assert [line.text for line in read_page(source.path).lines] == TEXTS


def test_an_archive_is_a_data_set_but_not_a_file_to_transcribe(
    write_page: Pages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache")
    pack(tmp_path, write_page, "page")
    assert PageXml(tmp_path / "out.zip").texts == TEXTS * 2
    assert find_sources([str(tmp_path / "out.zip")]).errors == [
        f"{tmp_path / 'out.zip'}: a zip archive; unpack it, and name the folder"
    ]


def test_images_keep_their_bytes_and_odd_names(write_page: Pages, tmp_path: Path) -> None:
    names = ["Ünïcode & <b>", "100%20 sure"]
    pairs = []
    for name in names:
        xml = write_page(tmp_path / "in", ["un"], "p").rename(tmp_path / f"{name}.xml")
        pairs.append(((tmp_path / "in/p.png").rename(tmp_path / f"{name}.png"), xml))
    write_package(tmp_path / "out.zip", pairs, "page")
    archive = ZipFile(tmp_path / "out.zip")
    for (image, _), name in zip(pairs, names, strict=True):
        assert archive.read(f"{name}.png") == image.read_bytes()
    archive.extractall(tmp_path / "x")
    assert [source.path.stem for source in find_sources([str(tmp_path / "x")]).sources] == names


def test_what_cannot_be_packed_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    out = tmp_path / "x.zip"
    one, other = (Source(Path(name), Path(name), False) for name in ("1/a.jpg", "2/A.png"))
    with pytest.raises(InputError, match="would have the same name"):
        check_package(out, [one, other], "page")
    with pytest.raises(InputError, match="add --format page"):
        check_package(out, [one], "hocr")
    out.touch()
    with pytest.raises(InputError, match="already exists"):
        check_package(out, [one], "page")


def test_an_image_of_one_line_is_a_page(line_image: Path, tmp_path: Path) -> None:
    read = TranscribedLine(Source(line_image, line_image), None, Transcription("un", 1.0))
    (tmp_path / "line.xml").write_bytes(page_file(read.source, [read], "page", About(exchanged=True)))
    write_package(tmp_path / "x.zip", [(line_image, tmp_path / "line.xml")], "page")
    ZipFile(tmp_path / "x.zip").extractall(tmp_path / "x")
    (line,) = read_page(tmp_path / "x/page/line.xml").lines
    assert isinstance(line, Line)
    assert line.polygon


def test_the_command_packs_what_it_read_and_goes_on_where_it_stopped(
    best: Path, htr, write_page: Pages, tmp_path: Path
) -> None:
    for stem in "ab":
        write_page(tmp_path / "in", ["un", "deux"], stem)
    out = tmp_path / "out.zip"
    command = ["transcribe", best, tmp_path / "in", "--format", "page", "--out", out]
    outcome = htr(*command)
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout.splitlines() == [str(out)]
    names = ZipFile(out).namelist()
    assert names == ["a.png", "page/a.xml", "b.png", "page/b.xml", "mets.xml"]
    assert not out.with_name("out.zip.part").exists()
    assert "already exists" in htr(*command).stderr

    half = out.with_name("out.zip.part")  # as after an interruption
    half.mkdir()
    (half / "a.xml").write_bytes(ZipFile(out).read("page/a.xml").replace(b"<Creator>", b"<Creator>kept "))
    out.unlink()
    assert "add --skip-existing" in htr(*command).stderr
    assert htr(*command, "--skip-existing").code == 0
    assert ZipFile(out).namelist() == names
    assert b"<Creator>kept " in ZipFile(out).read("page/a.xml")
