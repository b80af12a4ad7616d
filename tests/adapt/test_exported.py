"""What comes back from an editor is compared with what it was given, and only what a person changed is a correction."""

import re
import stat
from collections import Counter
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any
from zipfile import ZipFile, ZipInfo

import cv2
import numpy as np
import pytest
from conftest import Outcome
from data.page.exchange import transcribed

from htr_lightning.adapt.corrected_files import (
    NO_SUCH_LINE,
    NO_TEXT,
    NOT_EXPORTED,
    UNCHANGED,
    UNCONFIRMED,
    read_corrections,
)
from htr_lightning.adapt.exported import unpacked
from htr_lightning.data.corrected import Correction
from htr_lightning.data.page.document import read_page
from htr_lightning.data.page.page import Page
from htr_lightning.data.page.written import About
from htr_lightning.errors import InputError
from htr_lightning.reading.package import write_package
from htr_lightning.reading.page_out import page_file
from htr_lightning.reading.sources import Source
from htr_lightning.reading.transcribe import open_lines

READ = ["un mot cou-", "deux", "trois & plus", "quatre"]  # what the recognizer read on each of the pages a and b
Change = Callable[[str, int, str], str]


@pytest.fixture
def given(request: pytest.FixtureRequest, write_page: Callable[..., Path], tmp_path: Path) -> Path:
    """An archive with two pages, as `htr transcribe --out given.zip` writes it."""
    pairs, form = [], getattr(request, "param", "page")
    for stem in "ab":
        xml = write_page(tmp_path / "in", ["un", "deux", "trois", "quatre"], stem)
        image = xml.with_suffix(".png")
        picture = cv2.imread(str(image), cv2.IMREAD_GRAYSCALE)
        picture[:3, :3] = ord(stem)  # so that no two pages are equal
        assert cv2.imwrite(str(image), picture)
        out = tmp_path / f"{stem}.xml"
        about = About("m", exchanged=True)
        out.write_bytes(page_file(Source(xml, image, True), transcribed(xml, READ, image), form, about))
        pairs.append((image, out))
    write_package(tmp_path / "given.zip", pairs, form)
    ZipFile(tmp_path / "given.zip").extractall(tmp_path / "editor")
    return tmp_path / "given.zip"


def pages_in(given: Path) -> dict[str, Page]:
    return {path.stem: read_page(path) for path in sorted((given.parent / "editor").glob("*/*.xml"))}


def kept(stem: str, number: int, text: str) -> str:
    return text


def two_changes(stem: str, number: int, text: str) -> str:
    return {("a", 1): "DEUX", ("b", 0): "un mot-"}.get((stem, number), text)


def escriptorium(given: Path, change: Change = kept, form: str = "alto", images: bool = False) -> Path:
    """Return an archive as eScriptorium exports it: flat, a string a line, its own METS, ids kept."""
    path = given.with_name("escriptorium.zip")
    with ZipFile(path, "w") as archive:
        listed = []
        for number, (stem, page) in enumerate(pages_in(given).items(), start=1):
            lines = ""
            for place, line in enumerate(page.lines):
                text = escape(change(stem, place, line.text))
                pairs = [f"{x:.0f},{y:.0f}" for x, y in line.polygon]
                if form == "alto":
                    lines += (f'<TextLine ID="{line.id}" HPOS="0" VPOS="0" WIDTH="9" HEIGHT="9"><Shape><Polygon '
                              f'POINTS="{" ".join(pairs).replace(",", " ")}"/></Shape><String CONTENT="{text}" '
                              'HPOS="0" VPOS="0" WIDTH="9" HEIGHT="9" WC="0.12"></String></TextLine>')  # fmt: skip
                else:
                    lines += (f'<TextLine id="{line.id}" ><Coords points="{" ".join(pairs)}"/><TextEquiv>'
                              f"<Unicode>{text}</Unicode></TextEquiv></TextLine>")  # fmt: skip
            if images:
                archive.write(given.parent / "editor" / page.image, page.image)
            size = f'WIDTH="{page.width}" HEIGHT="{page.height}"'
            archive.writestr(f"{stem}.xml", (
                '<?xml version="1.0" encoding="UTF-8"?>\n<alto xmlns="http://www.loc.gov/standards/alto/ns-v4#"><Description>'
                f"<sourceImageInformation><fileName>{page.image}</fileName></sourceImageInformation></Description><Layout>"
                f'<Page {size} ID="eSc_dummypage_"><PrintSpace {size}><TextBlock ID="eSc_dummyblock_">{lines}'
                "</TextBlock></PrintSpace></Page></Layout></alto>" if form == "alto" else
                '<PcGts xmlns="http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15"><Page '
                f'imageFilename="{page.image}" imageWidth="{page.width}" imageHeight="{page.height}"><TextRegion '
                f'id="eSc_dummyblock_">{lines}</TextRegion></Page></PcGts>'
            ))  # fmt: skip
            listed.append((f"export{number}", f"{stem}.xml"))
        files = "".join(f'<file ID="{id}"><FLocat xlink:href="{name}"/></file>' for id, name in listed)
        divs = "".join(f'<div TYPE="page"><fptr FILEID="{id}"/></div>' for id, _ in listed)
        archive.writestr("METS.xml", (
            '<mets xmlns="http://www.loc.gov/METS/" xmlns:xlink="http://www.w3.org/1999/xlink"><fileSec><fileGrp '
            f'USE="export">{files}</fileGrp></fileSec><structMap TYPE="physical"><div TYPE="document">{divs}</div>'
            "</structMap></mets>"
        ))  # fmt: skip
    return path


def transkribus(given: Path, change: Change = kept, states: Mapping[str, str] = {}) -> Path:
    """Return an archive as Transkribus exports it: two folders deep, numbered names, PAGE 2013, words not updated."""
    path = given.with_name("transkribus.zip")
    top, files, divs = "1234/a document/", "", ""
    with ZipFile(path, "w") as archive:
        for number, (stem, page) in enumerate(pages_in(given).items(), start=1):
            image, xml = f"{number:04}_{page.image}", f"page/{number:04}_{stem}.xml"
            archive.write(given.parent / "editor" / page.image, top + image)
            lines = "".join(
                f'<TextLine id="{line.id}"><Coords points="{" ".join(f"{x:.0f},{y:.0f}" for x, y in line.polygon)}"/>'
                f'<Word id="w{place}"><Coords points="0,0"/><TextEquiv><Unicode>old</Unicode></TextEquiv></Word>'
                f"<TextEquiv><Unicode>{escape(change(stem, place, line.text))}</Unicode></TextEquiv></TextLine>"
                for place, line in enumerate(page.lines)
            )
            archive.writestr(top + xml, (
                '<PcGts xmlns="http://schema.primaresearch.org/PAGE/gts/pagecontent/2013-07-15"><Metadata><Creator>'
                f'Transkribus</Creator><TranskribusMetadata docId="1" pageNr="{number}" '
                f'status="{states.get(stem, "IN_PROGRESS")}"/></Metadata><Page imageFilename="{image}" '
                f'imageWidth="{page.width}" imageHeight="{page.height}"><TextRegion id="r1">{lines}'
                "</TextRegion></Page></PcGts>"
            ))  # fmt: skip
            files += f'<ns3:file ID="PAGEXML_{number}" SEQ="{number}"><ns3:FLocat ns2:href="{xml}"/></ns3:file>'
            divs += (f'<ns3:div ID="PAGE_{number}" ORDER="{number}"><ns3:fptr><ns3:area FILEID="PAGEXML_{number}"/>'
                     "</ns3:fptr></ns3:div>")  # fmt: skip
        archive.writestr(top + "metadata.xml", "<trpDocMetadata/>")
        archive.writestr(top + "mets.xml", (
            '<ns3:mets xmlns:ns2="http://www.w3.org/1999/xlink" xmlns:ns3="http://www.loc.gov/METS/"><ns3:fileSec>'
            f'<ns3:fileGrp ID="MASTER"><ns3:fileGrp ID="PAGEXML">{files}</ns3:fileGrp></ns3:fileGrp></ns3:fileSec>'
            f'<ns3:structMap ID="TRP_STRUCTMAP" TYPE="MANUSCRIPT"><ns3:div ID="TRP_DOC_DIV">{divs}</ns3:div>'
            "</ns3:structMap></ns3:mets>"
        ))  # fmt: skip
    return path


def read(*names: Path, **settings: Any) -> tuple[list[Correction], Counter[str]]:
    left_out = Counter[str]()
    files = read_corrections([str(name) for name in names], left_out, **settings)
    return [one for several in files for one in several], left_out


EDITORS: list[Callable[..., Path]] = [
    escriptorium,
    lambda given, change: escriptorium(given, change, "page"),
    lambda given, change: escriptorium(given, change, images=True),
    transkribus,
]


@pytest.mark.parametrize("given", ["page", "alto"], indirect=True)
@pytest.mark.parametrize("editor", EDITORS)
def test_changed_lines_are_corrections_of_what_was_read(editor: Callable[..., Path], given: Path) -> None:
    found, left_out = read(editor(given, two_changes), exported=str(given))
    assert [(one.text, one.before, one.line) for one in found] == [("DEUX", "deux", "l1"), ("un mot-", READ[0], "l0")]
    assert [re.sub(r"^\d+_", "", one.source) for one in found] == ["a.xml", "b.xml"]
    assert all(one.confidence is not None and 0 < one.confidence < 1 for one in found)
    assert left_out == {UNCHANGED: 6}
    picture = cv2.imread(str(given.parent / "in" / "b.png"), cv2.IMREAD_GRAYSCALE)
    assert any(np.array_equal(found[1].image, picture[top : top + found[1].image.shape[0], 2:-2]) for top in range(5))


@pytest.mark.parametrize("editor", EDITORS)
def test_without_a_change_there_is_no_correction(editor: Callable[..., Path], given: Path) -> None:
    back = editor(given, kept)
    assert read(back, exported=str(given)) == ([], {UNCHANGED: 8})
    everything, left_out = read(back, exported=str(given), unconfirmed=True)
    assert ([one.text for one in everything], left_out) == (READ * 2, {})


def test_a_page_that_is_checked_in_transkribus_is_confirmed(given: Path) -> None:
    back = transkribus(given, states={"b": "GT"})
    found, left_out = read(back, exported=str(given))
    assert [(one.text, one.before) for one in found] == [(text, text) for text in READ]
    assert left_out == {UNCHANGED: 4}
    assert not read(transkribus(given, states={"b": "DONE"}), exported=str(given))[0]


def test_what_was_not_exported_and_what_was_emptied_is_counted(given: Path, write_page: Callable[..., Path]) -> None:
    folder = given.parent / "editor"
    xml = next(folder.glob("*/a.xml"))
    xml.write_text(xml.read_text().replace('"l2"', '"drawn_by_hand"').replace("quatre", " "))
    write_page(folder / "other", ["un", "deux"], "c")
    (folder / "mets.xml").unlink()
    (folder / "other" / "c.png").unlink()
    found, left_out = read(folder, exported=str(given))
    assert not found
    assert left_out == {UNCHANGED: 6, NO_SUCH_LINE: 1, NO_TEXT: 1, NOT_EXPORTED: 2}
    found, left_out = read(folder, exported=str(given), unconfirmed=True)
    assert [one.line for one in found if one.before is None] == ["drawn_by_hand"]
    assert left_out == {NO_TEXT: 1, NOT_EXPORTED: 2}


def test_pages_of_one_name_are_told_apart_or_refused(write_page: Callable[..., Path], tmp_path: Path) -> None:
    given, back = tmp_path / "given", tmp_path / "back"
    for folder, texts in (("A", ["un", "deux"]), ("B", ["un", "deux", "trois"])):
        write_page(given / folder, texts, "1")
    changed = write_page(back, ["un", "DEUX", "trois"], "1")
    changed.with_suffix(".png").unlink()
    found, _ = read(back, exported=str(given))
    own = list(open_lines(Source(given / "B" / "1.xml", given / "B" / "1.png", True)))[1]
    assert [(one.text, one.before) for one in found] == [("DEUX", "deux")]
    assert np.array_equal(found[0].image, own[1])
    write_page(given / "C", ["a", "b", "c"], "1")
    with pytest.raises(InputError, match=r"back/1\.xml: may be .*B/1\.png or .*C/1\.png; compare the pages of one"):
        read(back, exported=str(given))


def test_tables_are_not_compared(given: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.jsonl"
    table.write_text("")
    with pytest.raises(InputError, match=r"t\.jsonl: tables are not compared"):
        read(table, exported=str(given))


def test_errors_name_the_right_one_of_many_archives(tmp_path: Path) -> None:
    names = [str(archive(tmp_path / f"{number}.zip", **{"x.txt": ""})) for number in range(11)]
    with pytest.raises(InputError, match=rf"^{tmp_path}/10\.zip: "), unpacked(names) as folders:
        raise InputError(f"{folders[10]}: no")


def test_without_what_was_exported_only_stated_confidences_tell(given: Path) -> None:
    assert read(escriptorium(given, two_changes, images=True)) == ([], {UNCONFIRMED: 8})
    with pytest.raises(InputError, match=r"escriptorium\.zip/a\.xml: no image .*with --exported"):
        read(escriptorium(given, two_changes))


def archive(path: Path, **members: str | tuple[str, int]) -> Path:
    with ZipFile(path, "w") as made:
        for name, content in members.items():
            info = ZipInfo(name)
            if isinstance(content, tuple):
                content, info.external_attr = content
            made.writestr(info, content)
    return path


HOSTILE: dict[str, tuple[dict[str, str | tuple[str, int]], str]] = {
    "a path outside": ({"../x.xml": "<a/>"}, "a path leads outside the archive"),
    "an absolute path": ({"/tmp/x.xml": "<a/>"}, "a path leads outside the archive"),
    "a link": ({"x.xml": ("/etc/passwd", (stat.S_IFLNK | 0o777) << 16)}, "contains a symbolic link"),
    "no archive": ({}, "the archive is corrupted"),
    "no page": ({"x.txt": "a"}, "no images or XML files"),
    "no XML": ({"x.xml": "<PcGts"}, "bad.zip/x.xml: "),
    "a METS file that leads outside": (
        {"mets.xml": '<mets xmlns:x="y"><fileSec><file><FLocat x:href="../../x.xml"/></file></fileSec></mets>'},
        "bad.zip/mets.xml: lists ../../x.xml, which is outside",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_costs_one_line_and_stores_nothing(
    kind: str, htr: Callable[..., Outcome], tmp_path: Path
) -> None:
    members, message = HOSTILE[kind]
    bad = archive(tmp_path / "bad.zip", **members)
    if not members:
        bad.write_bytes(b"PK no zip")
    for names in ([bad], [bad, "--exported", bad])[: 1 + (kind == "a link")]:
        outcome = htr("feedback", "add", tmp_path / "c.db", *names)
        assert outcome.code == 1
        (line,) = outcome.stderr.splitlines()
        assert message in line
        assert "htr-archive-" not in line  # the temporary folder
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.zip"]


def test_the_command_says_what_came_back(given: Path, htr: Callable[..., Outcome], tmp_path: Path) -> None:
    back, store = escriptorium(given, two_changes), tmp_path / "c.db"
    unchanged = htr("feedback", "add", store, escriptorium(given), "--exported", given)
    assert (unchanged.code, store.exists()) == (1, False)
    assert "no corrected lines; see above what was left out" in unchanged.stderr
    back = escriptorium(given, two_changes)
    outcome = htr("feedback", "add", store, back, "--exported", given, "--who", "anna")
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout.splitlines() == [
        "left out: lines that are as they were exported (--unconfirmed takes them): 6",
        f"{store}: 2 lines accepted, 0 of them known with the same text, 0 contradicted",
    ]
