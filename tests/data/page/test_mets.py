"""METS files determine the pages of an export and their order."""

from pathlib import Path

import pytest

from htr_lightning.data.page import mets
from htr_lightning.data.page.document import expand, read_page
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
    assert mets.read(write_mets(tmp_path, {"x": ["c.xml", "a.xml"]})) == [tmp_path / "c.xml", tmp_path / "a.xml"]


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
    assert [s.id for s in reader.skipped] == ["x/alto/a", "x/alto/b", "x/metadata"]
    assert {s.kind for s in reader.skipped} == {"file not listed in METS"}


def test_a_folder_beside_that_of_a_mets_is_read_as_ever(tmp_path: Path, write_page) -> None:
    write_page(tmp_path / "one", ["un"], "a")
    write_page(tmp_path / "one", ["not listed"], "b")
    write_page(tmp_path / "two", ["deux"], "c")
    write_mets(tmp_path / "one", {"x": ["a.xml"]})
    found, left_out = expand(sorted(tmp_path.rglob("*.xml")))
    assert sorted(path.name for path in found) == ["a.xml", "c.xml"]
    assert [path.name for path in left_out] == ["b.xml"]


def test_a_page_may_be_called_mets(tmp_path: Path, write_page) -> None:
    assert expand([write_page(tmp_path, ["un"], "gourmets")]) == ([tmp_path / "gourmets.xml"], [])


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("../out.xml", "is outside the folder"),
        ("/etc/passwd.xml", "is outside the folder"),
        ("https://example.org/a.xml", "not a local file"),
        ("gone.xml", "is missing"),
        ("a.jpg", "lists no XML file"),
        (f"{'a' * 5000}.xml", "is missing"),
    ],
)
def test_what_a_mets_lists_and_cannot_be_read_is_refused(tmp_path: Path, write_page, place: str, words: str) -> None:
    write_page(tmp_path, ["un"], "out")
    (tmp_path / "sub").mkdir()
    path = write_mets(tmp_path / "sub", {"x": [place]})
    with pytest.raises(InputError, match=words):
        mets.read(path)


def test_two_page_files_for_one_page_are_refused(tmp_path: Path, write_page) -> None:
    for stem in "ab":
        write_page(tmp_path, [stem], stem)
    with pytest.raises(
        InputError, match=r"lists a\.xml and b\.xml for the same page; select one with data\.reader\.xml"
    ):
        mets.read(write_mets(tmp_path, {"x": ["a.xml", "b.xml"]}, [["a.xml", "b.xml"]]))


def test_places_may_be_written_as_urls(tmp_path: Path, write_page) -> None:
    write_page(tmp_path, ["un"], "a b")
    assert mets.read(write_mets(tmp_path, {"x": ["file://a%20b.xml"]})) == [tmp_path / "a b.xml"]


def test_a_mets_of_another_name_is_refused_with_the_remedy(tmp_path: Path) -> None:
    write_mets(tmp_path, {}).rename(tmp_path / "list.xml")
    with pytest.raises(InputError, match=r"rename it to mets\.xml"):
        read_page(tmp_path / "list.xml")
