"""Writing a page as PAGE and reading it back preserves it."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from htr_lightning.data.page.document import read_page
from htr_lightning.data.page.page import Line, Page
from htr_lightning.data.page.write_page import NAMESPACE, edit_page, new_page
from htr_lightning.data.page.written import About

BOX = [(2.0, 2.0), (90.0, 2.0), (90.0, 30.0), (2.0, 30.0)]
WHOLE = [(0.0, 0.0), (100.0, 0.0), (100.0, 80.0), (0.0, 80.0)]
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
    path.write_bytes(new_page(page(path), About()))
    lines = [line._replace(confidence=None) for line in page(path).lines]
    lines[2] = lines[2]._replace(polygon=WHOLE)  # which the format requires
    assert read_page(path)._replace(regions={}) == page(path)._replace(lines=lines)
    assert read_page(path).regions == {"r1": [(2, 2), (90, 2), (90, 70), (2, 70)], "r2": WHOLE}
    content = path.read_text()
    assert content.count("<TextEquiv") == 2  # an empty transcription has one, too
    assert 'conf="0.9"' in content
    assert '<TextRegion id="r1">\n      <Coords points="2,2 90,2 90,70 2,70" />' in content
    assert '<TextRegion id="r2">\n      <Coords points="0,0 100,0 100,80 0,80" />' in content  # no polygon: the page


def test_texts_are_replaced_and_the_rest_of_the_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "p.xml"
    old = new_page(page(path), About()).decode().replace("</Metadata>", "<Comments>kept</Comments></Metadata>")
    old = old.replace("<TextEquiv", "<Word id='w'/><TextEquiv")
    path.write_text(old)
    lines = [line._replace(confidence=None) for line in page(path).lines]
    lines[1] = lines[1]._replace(text="trois", confidence=0.25)
    path.write_bytes(edit_page(path, lines, About()))
    assert [line.text for line in read_page(path).lines] == ["un & deux", "trois", ""]
    assert "<Comments>kept" in path.read_text()
    assert path.read_text().count("<Word") == 2  # the words of the other lines
    path.write_bytes(edit_page(path, [line._replace(confidence=1.0) for line in lines], About()))
    assert "<Word" not in path.read_text()


def read(tmp_path: Path, *lines: str, page: str = "", region: str = "", prefix: str = "") -> Page:
    """Read a page with one region from its lines and the attributes of the page and the region."""
    xml = f'<PcGts xmlns="{NAMESPACE}"><Page imageFilename="p.png" {page}><TextRegion id="r" {region}>{"".join(lines)}'
    xml += "</TextRegion></Page></PcGts>"
    if prefix:
        xml = re.sub(r"<(/?)(?=\w)", rf"<\1{prefix}:", xml).replace("xmlns=", f"xmlns:{prefix}=")
    path = tmp_path / "p.xml"
    path.write_text(xml, encoding="utf-8")
    return read_page(path)


def equiv(unicode: str | None = None, plain: str | None = None, index: str | None = None) -> str:
    text = "" if plain is None else f"<PlainText>{plain}</PlainText>"
    text += "" if unicode is None else f"<Unicode>{unicode}</Unicode>"
    return f"<TextEquiv>{text}</TextEquiv>" if index is None else f'<TextEquiv index="{index}">{text}</TextEquiv>'


def part(kind: str, *inner: str) -> str:
    return f'<{kind} id="x"><Coords points="1,1 2,1 2,2"/>{"".join(inner)}</{kind}>'


def spelled(word: str) -> str:
    return part("Word", *(part("Glyph", equiv(letter)) for letter in word))


OWN, EMPTY = equiv("own"), equiv("")
WORDS = part("Word", equiv("un")), part("Word", equiv("deux"))
TEXTS: dict[str, tuple[list[str], str]] = {
    "words": ([*WORDS], "un deux"),
    "one word": ([WORDS[0]], "un"),
    "glyphs": ([spelled("un"), spelled("e\u0301t\u00e9")], "un e\u0301t\u00e9"),
    "words and glyphs": ([WORDS[0], spelled("deux")], "un deux"),
    "a word with glyphs of another text": ([part("Word", equiv("un"), part("Glyph", equiv("x")))], "un"),
    "glyphs without words": ([part("Glyph", equiv("u")), part("Glyph", equiv("n"))], "un"),
    "a word without text": ([WORDS[0], part("Word"), part("Word", EMPTY), WORDS[1]], "un deux"),
    "spaces and a break in a word": ([part("Word", equiv(" un\u2028")), WORDS[1]], "un deux"),
    "words of several texts": ([part("Word", equiv("b", index="1"), equiv("a", index="0")), WORDS[1]], "a deux"),
    "own text": ([*WORDS, OWN], "own"),
    "own text first": ([OWN, *WORDS], "own"),
    "own text that is empty": ([*WORDS, EMPTY, equiv(" ")], "un deux"),
    "own text without an element": ([*WORDS, "<TextEquiv/>"], "un deux"),
    "plain text": ([equiv(plain="plain")], "plain"),
    "plain text and words": ([*WORDS, equiv(plain="plain")], "plain"),
    "plain text and an empty one": ([equiv("", "plain")], "plain"),
    "plain text and another": ([equiv("own", "plain")], "own"),
    "an empty text of lower index": ([equiv("", index="0"), equiv("own", index="1")], "own"),
    "an empty text of lowest index, in another order": ([equiv("b", index="7"), equiv("a", index="3"), EMPTY], "a"),
    "plain text of lower index": ([equiv("own", index="1"), equiv(plain="plain", index="0")], "plain"),
    "an index that is no number": ([equiv("b", index="0"), equiv("a", index="x")], "a"),
    "spaces only": ([equiv(" ")], " "),
    "nothing": ([], ""),
    "a carriage return": ([equiv("un&#13;deux&#13;&#10;trois")], "un deux trois"),
    "a separator": ([equiv("un\u2028deux\u2029trois\u0085quatre")], "un deux trois quatre"),
    "composed and decomposed letters": ([equiv("e\u0301\u00e9")], "e\u0301\u00e9"),
}


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("prefix", ["", "pc"])
def test_the_text_of_a_line_is_its_own_or_else_that_of_its_words(tmp_path: Path, kind: str, prefix: str) -> None:
    inner, text = TEXTS[kind]
    assert [line.text for line in read(tmp_path, part("TextLine", *inner), prefix=prefix).lines] == [text]


@pytest.mark.parametrize("prefix", ["", "pc"])
def test_replaced_texts_leave_no_other_text(tmp_path: Path, prefix: str) -> None:
    both = [equiv("b", index="1"), equiv("a", index="0")]
    lines = [
        part("TextLine", *WORDS, *both, "<TextStyle/>"),
        part("TextLine", *both).replace('id="x"', 'id="y"'),
        *both,
    ]
    bad = part("TextLine", *WORDS).replace('id="x"', 'id="z"').replace("1,1", "1,nan")
    found = read(tmp_path, *lines, bad, page='custom="kept"', prefix=prefix)
    assert [line.bad_polygon != "" for line in found.lines] == [False, False, True]
    first, second, third = found.lines
    new = [first._replace(text="new", confidence=0.5), second, third._replace(text="also", confidence=0.5)]
    found.path.write_bytes(edit_page(found.path, new, About()))
    content = found.path.read_text()
    again = read_page(found.path)
    assert [line.text for line in again.lines] == ["new", "a", "also"]
    assert [line._replace(text="") for line in again.lines] == [line._replace(text="") for line in found.lines]
    assert (
        len(re.findall("</(?:pc:)?TextEquiv>", content)) == 5
    )  # one each in the lines that were replaced and in the region, and two in the other one
    assert "<Unicode>new\na\nalso<" in content.replace("pc:", "")
    assert content.index("new") < content.index("TextStyle")
    assert 'custom="kept"' in content
    assert "1,nan" in content
    assert content.count(NAMESPACE) == 1
    root = ElementTree.fromstring(content)
    assert {element.tag.rpartition("}")[0] for element in root.iter()} == {f"{{{NAMESPACE}"}


def test_orientation_is_that_of_the_innermost_region_and_of_the_line_in_it(tmp_path: Path) -> None:
    inner = f'<TextRegion id="i" orientation="-90">{part("TextLine")}</TextRegion>'
    turned = part("TextLine", EMPTY).replace("TextLine id", 'TextLine orientation="2" id')
    cell = f'<TableCell id="c">{turned}</TableCell>'
    found = read(tmp_path, part("TextLine"), inner, cell, page='orientation="1.5"', region='readingOrientation="90"')
    assert [line.orientation for line in found.lines] == [91.5, 0, 93.5]
    found = read(tmp_path, part("TextLine"), inner, region='orientation="abc"', page='orientation="90"')
    assert [line.orientation for line in found.lines] == [0, -90]


def test_reading_direction_is_that_of_the_line_or_else_of_what_contains_it(tmp_path: Path) -> None:
    lines = part("TextLine"), part("TextLine").replace("TextLine id", "TextLine readingDirection='left-to-right' id")
    found = read(tmp_path, *lines, page='readingDirection="right-to-left"')
    assert [line.direction for line in found.lines] == ["right-to-left", "left-to-right"]


def test_orientation_and_direction_are_written(tmp_path: Path) -> None:
    path = tmp_path / "p.xml"
    lines = [
        Line("l1", "un", BOX, [], "r1", orientation=90, direction="right-to-left"),
        Line("l2", "deux", LOWER, [], "r2", orientation=-2.5),
        Line("l3", "trois", LOWER, [], "r3"),
    ]
    written = Page(path, "p.png", 100, 80, lines)
    path.write_bytes(new_page(written, About()))
    assert read_page(path)._replace(regions={}) == written
