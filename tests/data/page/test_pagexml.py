"""Writing a page as PAGE and reading it back preserves it."""

from pathlib import Path

from htr_lightning.data.page.document import read_page
from htr_lightning.data.page.page import Line, Page
from htr_lightning.data.page.pagexml import replace_texts, write

BOX = [(2.0, 2.0), (90.0, 2.0), (90.0, 30.0), (2.0, 30.0)]
LOWER = [(2.0, 40.0), (80.0, 40.0), (80.0, 70.0), (2.0, 70.0)]


def page(path: Path) -> Page:
    lines = [
        Line("l1", "un & deux", BOX, [(2.0, 28.0), (90.0, 28.0)], "r1", 0.9),
        Line("l2", "", LOWER, [], "r1"),
        Line("l3", "", [], [], "r2", 0.5),
    ]
    return Page(path, "p.png", 100, 80, lines)


def test_a_page_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "p.xml"
    path.write_bytes(write(page(path)))
    lines = [line._replace(confidence=None) for line in page(path).lines]
    assert read_page(path) == page(path)._replace(lines=lines)
    content = path.read_text()
    assert content.count("<TextEquiv") == 2  # an empty transcription has one, too
    assert 'conf="0.9000"' in content
    assert '<TextRegion id="r1">\n      <Coords points="2,2 90,2 90,70 2,70" />' in content
    assert '<TextRegion id="r2">\n      <Coords points="0,0 100,0 100,80 0,80" />' in content  # no polygon: the page


def test_texts_are_replaced_and_the_rest_of_the_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "p.xml"
    old = write(page(path)).decode().replace("</Metadata>", "<Comments>kept</Comments></Metadata>")
    old = old.replace("<TextEquiv", "<Word id='w'/><TextEquiv")
    path.write_text(old)
    changed = page(path).lines[1]._replace(text="trois", confidence=0.25)
    path.write_bytes(replace_texts(path, [changed]))
    assert [line.text for line in read_page(path).lines] == ["un & deux", "trois", ""]
    assert "<Comments>kept" in path.read_text()
    assert path.read_text().count("<Word") == 2  # the words of the other lines
    path.write_bytes(replace_texts(path, page(path).lines))
    assert "<Word" not in path.read_text()
