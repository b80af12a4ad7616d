"""METS files determine the pages of an export and their order."""

from pathlib import Path

import pytest

from htr_lightning.data.page import mets
from htr_lightning.data.page.image_files import ImageFinder
from htr_lightning.data.page.selection import Selection, select_pages
from htr_lightning.data.reader.page_xml import PageXml
from htr_lightning.errors import InputError

XLINK = 'xmlns:xlink="http://www.w3.org/1999/xlink"'


def write_mets(folder: Path, groups: dict[str, list[str]], order: list[list[str]] | None = None, area: bool = False):
    """Write a METS file with file groups {USE: paths}; `order` lists the files of each page in reverse."""
    ids = {place: f"f{n}" for n, place in enumerate(p for places in groups.values() for p in places)}
    files = "".join(
        f'<mets:fileGrp USE="{use}">'
        + "".join(
            f'<mets:file ID="{ids[place]}" MIMETYPE="application/xml"><mets:FLocat LOCTYPE="URL" xlink:href="{place}"/>'
            "</mets:file>"
            for place in places
        )
        + "</mets:fileGrp>"
        for use, places in groups.items()
    )

    def pointer(place: str) -> str:
        inner = f'<mets:area FILEID="{ids[place]}"/>' if area else ""
        return f"<mets:fptr>{inner}</mets:fptr>" if area else f'<mets:fptr FILEID="{ids[place]}"/>'

    divs = [
        f'<mets:div TYPE="page" ORDER="{n}">{"".join(map(pointer, places))}</mets:div>'
        for n, places in enumerate(order or [], start=1)
    ]
    logical = '<mets:structMap TYPE="LOGICAL"><mets:div TYPE="letter"/></mets:structMap>'
    physical = f'<mets:structMap TYPE="PHYSICAL"><mets:div>{"".join(divs[::-1])}</mets:div></mets:structMap>'
    path = folder / "mets.xml"
    path.write_text(
        f'<mets:mets xmlns:mets="http://www.loc.gov/METS/" {XLINK}><mets:fileSec>{files}</mets:fileSec>{logical}'
        f"{physical if order else ''}</mets:mets>"
    )
    return path


def selected(folder: Path) -> Selection:
    return select_pages(sorted(folder.rglob("*.xml")), ImageFinder(folder))


@pytest.mark.parametrize("area", [False, True])
def test_pages_come_in_the_order_of_the_physical_structure(tmp_path: Path, write_page, area: bool) -> None:
    for stem in "abc":
        write_page(tmp_path / "page", [stem], stem)
    places = ["page/a.xml", "page/b.xml", "page/c.xml"]
    order = [["page/c.xml"], ["page/a.xml"], ["page/b.xml"]]
    write_mets(tmp_path, {"image": ["page/a.png"], "page": places}, order, area)
    assert PageXml(tmp_path).texts == ["c", "a", "b"]
    assert PageXml(tmp_path, xml="mets.xml").texts == ["c", "a", "b"]


def test_without_a_structure_pages_come_as_they_are_listed(tmp_path: Path, write_page) -> None:
    for stem in "abc":
        write_page(tmp_path, [stem], stem)
    assert mets.read(write_mets(tmp_path, {"x": ["c.xml", "a.xml"]})) == [[tmp_path / "c.xml"], [tmp_path / "a.xml"]]


@pytest.mark.parametrize("order", [("alto", "page"), ("page", "alto")])
def test_a_page_that_is_there_twice_is_read_once_as_page(tmp_path: Path, write_page, order: tuple[str, str]) -> None:
    for stem in "ab":
        write_page(tmp_path / "page", [stem], stem)
        write_page(tmp_path / "alto", [f"alto {stem}"], stem, form="ALTO")
    (tmp_path / "metadata.xml").write_text("<trpDocMetadata/>")
    groups = {form: [f"{form}/a.xml", f"{form}/b.xml"] for form in order}
    write_mets(tmp_path, groups, [[f"{form}/{stem}.xml" for form in order] for stem in "ab"])
    reader = PageXml(tmp_path, name="x")
    assert reader.texts == ["a", "b"]
    assert [(s.id, s.kind, s.detail, s.by) for s in reader.skipped] == [
        ("x/alto/a", "ALTO of a page that is read as PAGE", "", ""),  # nobody asked for this with data.reader.faulty
        ("x/alto/b", "ALTO of a page that is read as PAGE", "", ""),
        ("x/metadata", "neither PAGE nor ALTO", "root element <trpDocMetadata>", ""),
    ]


def test_a_page_that_a_mets_does_not_list_is_left_out_only_if_a_listed_file_describes_it(
    tmp_path: Path, write_page
) -> None:
    write_page(tmp_path / "one", ["un"], "a")
    write_page(tmp_path / "one", ["not listed"], "b")
    write_page(tmp_path / "two", ["deux"], "c")
    for form in ("alto", "text"):
        (tmp_path / "one" / form).mkdir()
    copy = write_page(tmp_path / "one" / ".draft", ["un"], "a", form="ALTO").read_text()
    (tmp_path / "one" / "alto" / "a.xml").write_text(copy)  # its image is that in the folder above
    (tmp_path / "one" / "text" / "a.xml").write_text(copy.replace("a.png", "gone.png"))
    write_mets(tmp_path / "one", {"x": ["a.xml"]})
    reader = PageXml(tmp_path, name="x")
    assert sorted(reader.texts) == ["deux", "not listed", "un"]
    assert [(s.id, s.kind, s.detail, s.by) for s in reader.skipped] == [
        ("x/one/alto/a", "not listed in mets.xml", "describes the same page as a.xml", ""),
        ("x/one/text/a", "not listed in mets.xml", "describes the same page as a.xml", ""),
    ]


def test_a_partial_mets_puts_its_pages_in_order_and_loses_no_other(tmp_path: Path, write_page) -> None:
    for stem in "abcdef":
        write_page(tmp_path, [stem], stem)
    write_mets(tmp_path, {"x": ["e.xml", "b.xml"]})
    reader = PageXml(tmp_path)
    assert sorted(reader.texts) == list("abcdef")
    assert reader.texts.index("e") == reader.texts.index("b") - 1
    assert not reader.skipped


def test_a_page_may_be_called_mets(tmp_path: Path, write_page) -> None:
    write_page(tmp_path, ["un"], "mets")
    assert selected(tmp_path).pages == [tmp_path / "mets.xml"]


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("../out.xml", "is outside the folder"),
        ("/etc/passwd.xml", "is outside the folder"),
        ("gone.xml", "is missing"),
        (f"{'a' * 5000}.xml", "is missing"),
        ("loop.xml", "is missing"),
    ],
)
def test_what_a_mets_lists_and_cannot_be_read_is_refused(tmp_path: Path, write_page, place: str, words: str) -> None:
    write_page(tmp_path, ["un"], "out")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "loop.xml").symlink_to("loop.xml")
    path = write_mets(tmp_path / "sub", {"x": [place]})
    with pytest.raises(InputError, match=words):
        mets.read(path)


@pytest.mark.parametrize("place", ["a.jpg", "https://example.org/a.xml"])
def test_a_mets_that_lists_no_local_page_leaves_the_folder_as_it_is(tmp_path: Path, write_page, place: str) -> None:
    path = write_mets(tmp_path, {"x": [place]})
    assert mets.read(path) == []
    with pytest.raises(InputError, match=r"no PAGE or ALTO file .*first: mets\.xml, METS file without pages"):
        PageXml(tmp_path)
    write_page(tmp_path, ["un"], "a")
    reader = PageXml(tmp_path, name="x")
    assert reader.texts == ["un"]
    assert [(s.id, s.kind) for s in reader.skipped] == [("x/mets", "METS file without pages")]


def test_a_mets_that_lists_some_pages_elsewhere_is_refused(tmp_path: Path, write_page) -> None:
    write_page(tmp_path, ["un"], "a")
    path = write_mets(tmp_path, {"x": ["a.xml", "https://example.org/b.xml"]})
    with pytest.raises(InputError, match=r"lists https://example\.org/b\.xml, which is not a local file"):
        mets.read(path)


def test_two_page_files_for_one_page_are_refused_although_their_images_differ(tmp_path: Path, write_page) -> None:
    for folder in ("seg", "ocr"):
        for stem in "ab":
            write_page(tmp_path / folder, [f"{folder} {stem}"], stem)
    groups = {folder: [f"{folder}/a.xml", f"{folder}/b.xml"] for folder in ("seg", "ocr")}
    write_mets(tmp_path, groups, [["seg/a.xml", "ocr/a.xml"], ["seg/b.xml", "ocr/b.xml"]])
    with pytest.raises(InputError) as refused:
        PageXml(tmp_path)
    assert "seg/a.xml and ocr/a.xml describe the same image, a.png (pages described more than once: 2)" in str(
        refused.value
    )
    assert "'data.reader.xml=seg/*.xml' or 'data.reader.xml=ocr/*.xml'" in str(refused.value)
    assert PageXml(tmp_path, xml="ocr/*.xml").texts == ["ocr a", "ocr b"]
    assert PageXml(tmp_path, exclude="ocr/*.xml").texts == ["seg a", "seg b"]


def test_two_mets_files_for_the_same_pages_are_refused(tmp_path: Path, write_page) -> None:
    for form in ("PAGE", "ALTO"):
        write_page(tmp_path / form, ["un"], "a", form)
        write_mets(tmp_path, {"x": [f"{form}/a.xml"]}).rename(tmp_path / f"{form}-mets.xml")
    with pytest.raises(InputError, match=r"ALTO/a\.xml and PAGE/a\.xml describe the same image, a\.png"):
        PageXml(tmp_path)
    assert len(PageXml(tmp_path, exclude="ALTO-mets.xml")) == len(PageXml(tmp_path, xml="PAGE-mets.xml")) == 1


def test_places_may_be_written_as_urls(tmp_path: Path, write_page) -> None:
    write_page(tmp_path, ["un"], "a b")
    assert mets.read(write_mets(tmp_path, {"x": ["file://a%20b.xml"]})) == [[tmp_path / "a b.xml"]]


def test_names_are_compared_in_any_unicode_form(tmp_path: Path, write_page) -> None:
    write_page(tmp_path, ["un"], "e\u0301te\u0301")  # as a Mac writes it
    assert mets.read(write_mets(tmp_path, {"x": ["\u00e9t\u00e9.xml"]})) == [[tmp_path / "e\u0301te\u0301.xml"]]


def test_a_mets_may_have_any_name(tmp_path: Path, write_page) -> None:
    for stem in "abc":
        write_page(tmp_path, [stem], stem)
    write_mets(tmp_path, {"x": ["b.xml", "a.xml"]}).rename(tmp_path / "list.XML")
    reader = PageXml(tmp_path)
    assert reader.texts == ["c", "b", "a"]
    assert not reader.skipped


@pytest.mark.parametrize("where", ["", "deep/"])
def test_a_file_that_is_no_page_is_named_and_counted_beside_pages_and_mets(
    tmp_path: Path, write_page, where: str
) -> None:
    write_page(tmp_path / where, ["un"], "a")
    if where:
        write_mets(tmp_path / where, {"x": ["a.xml"]})
    for name in ("tei", "more"):
        (tmp_path / f"{name}.xml").write_text("<TEI/>")
    reader = PageXml(tmp_path, name="x", faulty="error")
    assert reader.texts == ["un"]
    assert [(s.id, s.kind, s.detail) for s in reader.skipped] == [
        ("x/more", "neither PAGE nor ALTO", "root element <TEI>"),
        ("x/tei", "neither PAGE nor ALTO", "root element <TEI>"),
    ]
    with pytest.raises(InputError, match=r"no PAGE or ALTO file .*other files: 1, first: tei\.xml, root element <TEI>"):
        PageXml(tmp_path, xml="tei.xml")
