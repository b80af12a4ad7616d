"""ALTO lines wherever they are in a page, and the text of their strings, spaces and hyphens."""

import itertools
from pathlib import Path

import pytest

from htr_lightning.data.page.document import Page, read_page

NAMESPACE = "http://www.loc.gov/standards/alto/ns-v4#"


def read(tmp_path: Path, inner: str, order: str = "", page: str = "") -> Page:
    """Read a page from the content of its <Page> element and of its reading order."""
    path = tmp_path / "p.xml"
    reading = f"<ReadingOrder>{order}</ReadingOrder>"
    layout = f'<Layout><Page WIDTH="300" HEIGHT="200" {page}>{inner}</Page></Layout>'
    path.write_text(f'<alto xmlns="{NAMESPACE}">{reading}{layout}</alto>', encoding="utf-8")
    return read_page(path)


def line(name: str, extra: str = "") -> str:
    return (
        f'<TextLine ID="{name}" HPOS="1" VPOS="2" WIDTH="30" HEIGHT="9" {extra}><String CONTENT="{name}"/></TextLine>'
    )


def block(name: str, *content: str, kind: str = "TextBlock", extra: str = "") -> str:
    return f'<{kind} ID="{name}" {extra}>{"".join(content)}</{kind}>'


def names(page: Page) -> list[str]:
    return [line.id for line in page.lines]


CONTAINERS = ["PrintSpace", "TopMargin", "LeftMargin", "RightMargin", "BottomMargin", "ComposedBlock", "TextBlock"]


@pytest.mark.parametrize("outer", CONTAINERS)
@pytest.mark.parametrize("inner", ["TextBlock", "ComposedBlock"])
def test_every_line_is_read_whatever_contains_it(tmp_path: Path, outer: str, inner: str) -> None:
    deep = block("c", block("d", line("l3"), kind="ComposedBlock"), line("l4"), kind=inner)
    found = read(
        tmp_path, line("l1") + block("o", line("l2"), deep, line("l5"), kind=outer) + line("l6"), page='ID="p"'
    )
    assert [(each.id, each.text, each.region) for each in found.lines] == [
        *(
            ("l1", "l1", "p"),
            ("l2", "l2", "o"),
            ("l3", "l3", "d"),
            ("l4", "l4", "c"),
            ("l5", "l5", "o"),
            ("l6", "l6", "p"),
        )
    ]
    assert {tuple(each.polygon) for each in found.lines} == {((1, 2), (31, 2), (31, 11), (1, 11))}


def reference(*names: str, kind: str = "ElementRef") -> str:
    return f'<{kind} REF="{" ".join(names)}"/>'


def test_the_innermost_element_listed_determines_the_position_of_a_line(tmp_path: Path) -> None:
    blocks = block("a", line("a1"), line("a2")), block("b", line("b1"), line("b2")), block("c", line("c1"))
    inner = block("o", blocks[0], blocks[1], kind="ComposedBlock") + blocks[2]
    for order, expected in {
        (): "a1 a2 b1 b2 c1",
        ("c", "b", "a"): "c1 b1 b2 a1 a2",
        ("b",): "b1 b2 a1 a2 c1",
        ("c", "o"): "c1 a1 a2 b1 b2",
        ("b", "o", "c"): "b1 b2 a1 a2 c1",
        ("b2", "a", "b1"): "b2 a1 a2 b1 c1",
        ("c1", "missing", "a2"): "c1 a2 a1 b1 b2",
    }.items():
        for refs in ("".join(map(reference, order)), reference(*order)):
            assert " ".join(names(read(tmp_path, inner, f"<OrderedGroup>{refs}</OrderedGroup>"))) == expected
    groups = '<OrderedGroup><UnorderedGroup REF="c"/><OrderedGroup><ElementRef REF="b"/></OrderedGroup></OrderedGroup>'
    assert " ".join(names(read(tmp_path, inner, groups))) == "c1 b1 b2 a1 a2"


@pytest.mark.parametrize("hyphen", ["-", "¬", "=", "⸗", "‐", "\u2011", "–", ":"])
def test_a_hyphen_given_twice_is_one(tmp_path: Path, hyphen: str) -> None:
    strings = [f'<String CONTENT="Fon{mark}" SUBS_CONTENT="Fontane"/>' for mark in ("", hyphen, "\u00ad")]
    hyphens = [
        "<HYP/>",
        '<HYP CONTENT=""/>',
        '<HYP CONTENT=" "/>',
        '<HYP CONTENT="\u00ad"/>',
        f'<HYP CONTENT="{hyphen}"/>',
    ]
    for (mark, string), hyp in itertools.product(zip(("", hyphen, ""), strings, strict=True), hyphens):
        for space in ("", "<SP/>"):
            found = (
                read(tmp_path, f'<TextLine><String CONTENT="un"/><SP/>{string}{space}{hyp}</TextLine>').lines[0].text
            )
            if mark == ":" and hyp != hyphens[-1]:
                assert found == "un Fon:-"  # a colon is a hyphen only if the file says so
            else:
                assert found == f"un Fon{mark or (hyphen if hyp == hyphens[-1] else '-')}"


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        # an empty string, and strings whose text is in their glyphs
        ('<String CONTENT="un"/><SP/><String/><SP/><String CONTENT="mot"/>', "un mot"),
        ('<String CONTENT="un"/><String CONTENT=""/><String CONTENT="mot"/>', "un mot"),
        ('<String><Glyph CONTENT="u"/><Glyph CONTENT="n"/></String><SP/><String CONTENT="mot"/>', "un mot"),
        ('<String CONTENT=""><Glyph CONTENT="u"/><Glyph/><Glyph CONTENT="n"/></String><HYP/>', "un-"),
        ('<String CONTENT="un"><Glyph CONTENT="x"/></String>', "un"),
        # spaces at the ends do not show that spaces are written
        ('<SP/><String CONTENT="un"/><String CONTENT="mot"/><SP/>', "un mot"),
        ('<String CONTENT="un"/><SP/><SP/><String CONTENT="mot"/>', "un mot"),
        ('<String CONTENT="l&apos;"/><String CONTENT="an"/><SP/><String CONTENT="x"/><SP/>', "l'an x"),
        ("<SP/>", ""),
        ("<HYP/>", "-"),
        ("<String/>", ""),
        # line breaks
        ('<String CONTENT="un&#13;mot"/>', "un mot"),
        ('<String CONTENT="un\u2028"/><SP/><String CONTENT="\u0085mot"/>', "un mot"),
    ],
)
def test_the_text_is_that_of_the_strings_and_of_the_spaces_between_them(tmp_path: Path, parts: str, text: str) -> None:
    assert [line.text for line in read(tmp_path, f"<TextLine>{parts}</TextLine>").lines] == [text]


def test_the_innermost_rotation_and_direction_apply(tmp_path: Path) -> None:
    inner = block("a", line("l1"), line("l2", 'ROTATION="-10" BASEDIRECTION="ltr"'), extra='ROTATION="90"')
    outer = block("b", inner, line("l3"), kind="ComposedBlock", extra='BASEDIRECTION="rtl"')
    bad = block("c", line("l4", 'BASEDIRECTION="ttb"'), extra='ROTATION="nan" BASEDIRECTION="none"')
    found = read(tmp_path, outer + bad, page='ROTATION="180"').lines
    assert [line.orientation for line in found] == [90, -10, 180, 180]
    assert [line.direction for line in found] == ["right-to-left", "left-to-right", "right-to-left", "top-to-bottom"]
    assert {line.orientation for line in read(tmp_path, inner.replace('ROTATION="90"', "")).lines} == {0, -10}


@pytest.mark.parametrize(
    ("points", "reason"),
    [("", ""), ("1,2", "fewer than 3 points"), ("1,2 3,4", "fewer than 3 points"), ("1,2 3,nan 5,6", "not numbers")],
)
def test_a_polygon_that_is_none_is_replaced_by_the_box(tmp_path: Path, points: str, reason: str) -> None:
    shape = f'<Shape><Polygon POINTS="{points}"/></Shape>'
    with_box = read(tmp_path, line("l").replace("<String", f"{shape}<String")).lines[0]
    assert with_box.polygon == [(1, 2), (31, 2), (31, 11), (1, 11)]
    assert with_box.bad_polygon == (f"'{points}': {reason}" if reason else "")
    without = read(tmp_path, f"<TextLine>{shape}</TextLine>").lines[0]
    assert len(without.polygon) == (0 if "nan" in points else points.count(","))


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        (("nan", "2", "3", "4"), "not numbers"),
        (("10,5", "7,5", "100,5", "20,5"), "not four numbers"),
        (("1", "2", "3 4", "5"), "odd number of coordinates"),
        (("1e9", "2", "3", "4"), "out of range"),
    ],
)
def test_a_box_that_is_not_four_numbers_is_invalid(tmp_path: Path, box: tuple[str, ...], reason: str) -> None:
    sides = " ".join(f'{key}="{value}"' for key, value in zip(("HPOS", "VPOS", "WIDTH", "HEIGHT"), box, strict=True))
    found = read(tmp_path, f"<TextLine {sides}/>" + line("l2")).lines
    assert found[0].polygon == []
    assert found[0].bad_polygon == f"'{' '.join(box)}': {reason}"
    assert (found[1].bad_polygon, found[1].bad_baseline) == ("", "")
