"""PAGE and ALTO files as their schemas define them."""

import random
from contextlib import suppress
from pathlib import Path

import pytest

from htr_lightning.data.page.document import Line, Page, baseline_angle, read_head, read_page
from htr_lightning.errors import InputError

PAGE_NS = 'xmlns="http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15"'
ALTO_NS = 'xmlns="http://www.loc.gov/standards/alto/ns-v4#"'


def read(tmp_path: Path, content: str | bytes) -> Page:
    path = tmp_path / "p1.xml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_page(path)


def page(inner: str, namespace: str = PAGE_NS, size: str = 'imageWidth="300" imageHeight="200"') -> str:
    return f'<PcGts {namespace}><Page imageFilename="p1.jpg" {size}>{inner}</Page></PcGts>'


def region(name: str, *lines: str, inner: str = "", custom: str = "") -> str:
    return f'<TextRegion id="{name}" custom="{custom}">{inner}{"".join(lines)}</TextRegion>'


def line(name: str, text: str = "", custom: str = "") -> str:
    return (
        f'<TextLine id="{name}" custom="{custom}"><Coords points="0,0 10,0 10,10"/>'
        f"<TextEquiv><Unicode>{text or name}</Unicode></TextEquiv></TextLine>"
    )


def order(*regions: str, backwards: bool = False) -> str:
    """Return a reading order whose elements may be in reverse order in the file."""
    refs = [f'<RegionRefIndexed index="{n}" regionRef="{name}"/>' for n, name in enumerate(regions)]
    refs = refs[::-1] if backwards else refs
    return f'<ReadingOrder><OrderedGroup id="g">{"".join(refs)}</OrderedGroup></ReadingOrder>'


def alto(inner: str, namespace: str = ALTO_NS, description: str = "<MeasurementUnit>pixel</MeasurementUnit>") -> str:
    return (
        f"<alto {namespace}><Description>{description}<sourceImageInformation><fileName>p1.jpg</fileName>"
        f'</sourceImageInformation></Description><Layout><Page WIDTH="300" HEIGHT="200"><PrintSpace>'
        f'<TextBlock ID="b1">{inner}</TextBlock></PrintSpace></Page></Layout></alto>'
    )


def texts(found: Page) -> list[str]:
    return [line.text for line in found.lines]


def names(found: Page) -> list[str]:
    return [line.id for line in found.lines]


@pytest.mark.parametrize("namespace", [PAGE_NS, PAGE_NS.replace("2019-07-15", "2013-07-15"), ""])
def test_page_is_read_with_any_namespace_and_without(tmp_path: Path, namespace: str) -> None:
    found = read(tmp_path, page(region("r1", line("l1", "un"), line("l2", "deux")), namespace))
    assert (found.image, found.width, found.height) == ("p1.jpg", 300, 200)
    assert texts(found) == ["un", "deux"]
    assert found.lines[0].polygon == [(0, 0), (10, 0), (10, 10)]
    assert [line.region for line in found.lines] == ["r1", "r1"]


def test_a_prefixed_namespace_is_a_namespace(tmp_path: Path) -> None:
    xml = page(region("r1", line("l1", "un")), PAGE_NS.replace("xmlns=", "xmlns:pc="))
    for name in ("PcGts", "Page", "TextRegion", "TextLine", "Coords", "TextEquiv", "Unicode"):
        xml = xml.replace(f"<{name}", f"<pc:{name}").replace(f"</{name}", f"</pc:{name}")
    assert texts(read(tmp_path, xml)) == ["un"]


def test_regions_come_in_the_reading_order(tmp_path: Path) -> None:
    found = read(
        tmp_path, page(order("b", "a") + region("a", line("l1")) + region("c", line("l3")) + region("b", line("l2")))
    )
    assert names(found) == ["l2", "l1", "l3"]  # unlisted regions come last


def test_the_reading_order_is_that_of_the_index_not_of_the_file(tmp_path: Path) -> None:
    regions = region("a", line("l1")) + region("b", line("l2"))
    assert names(read(tmp_path, page(order("b", "a", backwards=True) + regions))) == ["l2", "l1"]


def test_groups_of_the_reading_order_follow_their_index_too(tmp_path: Path) -> None:
    groups = """<ReadingOrder><OrderedGroup id="g">
        <OrderedGroupIndexed id="g2" index="1"><RegionRefIndexed index="0" regionRef="b"/></OrderedGroupIndexed>
        <RegionRefIndexed index="0" regionRef="a"/><RegionRefIndexed index="2" regionRef="c"/>
        </OrderedGroup></ReadingOrder>"""
    regions = region("c", line("l3")) + region("b", line("l2")) + region("a", line("l1"))
    assert names(read(tmp_path, page(groups + regions))) == ["l1", "l2", "l3"]


def test_nested_regions_come_in_the_reading_order(tmp_path: Path) -> None:
    outer = region("o", inner=region("x", line("l2")) + region("y", line("l1")))
    assert names(read(tmp_path, page(order("o", "y", "x") + outer))) == ["l1", "l2"]


def test_lines_of_nested_regions_are_read(tmp_path: Path) -> None:
    nested = region("r2", line("l2"), inner=region("r3", line("l3")))
    table = f'<TableRegion id="t">{region("cell", line("l4"))}</TableRegion>'
    found = read(tmp_path, page(region("r1", line("l1"), inner=nested) + table))
    assert sorted(names(found)) == ["l1", "l2", "l3", "l4"]
    assert {line.id: line.region for line in found.lines} == {"l1": "r1", "l2": "r2", "l3": "r3", "l4": "cell"}


def test_lines_of_the_cells_of_a_table_are_read(tmp_path: Path) -> None:
    table = f'<TableRegion id="t"><TableCell id="c" row="0" col="0">{line("l1")}</TableCell></TableRegion>'
    found = read(tmp_path, page(table))
    assert [(line.id, line.region) for line in found.lines] == [("l1", "c")]


def test_blocks_come_in_the_reading_order_of_alto_4_3(tmp_path: Path) -> None:
    order = '<ReadingOrder><OrderedGroup ID="g"><ElementRef ID="e1" REF="b3"/><ElementRef ID="e2" REF="b1"/>'
    order += "</OrderedGroup></ReadingOrder>"
    one = '<TextLine ID="{}" HPOS="5" VPOS="7" WIDTH="100" HEIGHT="20"/>'.format
    blocks = one("l1") + "".join(f'</TextBlock><TextBlock ID="b{n}">{one(f"l{n}")}' for n in (2, 3))
    assert names(read(tmp_path, alto(blocks).replace("<Layout>", f"{order}<Layout>"))) == ["l3", "l1", "l2"]


def test_an_id_of_several_lines_is_written_in_one(tmp_path: Path) -> None:
    assert names(read(tmp_path, page(region("r1", line("a&#10; b"))))) == ["a b"]


def test_lines_come_in_the_order_of_their_custom_index(tmp_path: Path) -> None:
    custom = "readingOrder {{index:{};}} structure {{type:x;}}"
    lines = [line(f"l{n}", custom=custom.format(n)) for n in (2, 10, 0, 1)]
    assert names(read(tmp_path, page(region("r1", *lines)))) == ["l0", "l1", "l2", "l10"]


def test_where_not_every_line_has_a_custom_index_the_file_s_order_holds(tmp_path: Path) -> None:
    lines = [line("l2", custom="readingOrder {index:1;}"), line("l1")]
    assert names(read(tmp_path, page(region("r1", *lines)))) == ["l2", "l1"]


def test_the_line_s_own_text_of_lowest_index_counts(tmp_path: Path) -> None:
    inner = """<TextLine id="l1"><Coords points="0,0 10,0 10,10"/>
        <Word id="w"><Coords points="0,0 1,0 1,1"/><TextEquiv><Unicode>word</Unicode></TextEquiv></Word>
        <TextEquiv index="2"><Unicode>third</Unicode></TextEquiv>
        <TextEquiv index="0"><Unicode>first</Unicode></TextEquiv>
        <TextEquiv index="1"><Unicode>second</Unicode></TextEquiv></TextLine>"""
    whole = "<TextEquiv><Unicode>of the region</Unicode></TextEquiv>"
    assert texts(read(tmp_path, page(region("r1", inner, whole)))) == ["first"]


def test_a_text_without_an_index_comes_before_those_with_one(tmp_path: Path) -> None:
    inner = """<TextLine id="l1"><Coords points="0,0 10,0 10,10"/>
        <TextEquiv index="0"><Unicode>guess</Unicode></TextEquiv>
        <TextEquiv><Unicode>text</Unicode></TextEquiv></TextLine>"""
    assert texts(read(tmp_path, page(region("r1", inner)))) == ["text"]


def test_a_text_with_line_feeds_is_one_line(tmp_path: Path) -> None:
    assert texts(read(tmp_path, page(region("r1", line("l1", "\n  un mot\r\n\n  deux\n"))))) == ["un mot deux"]
    assert texts(read(tmp_path, page(region("r1", line("l1", "  un  mot "))))) == ["  un  mot "]  # spaces are kept


@pytest.mark.parametrize("equiv", ["", "<TextEquiv/>", "<TextEquiv><Unicode/></TextEquiv>"])
def test_a_line_without_text_has_the_empty_one(tmp_path: Path, equiv: str) -> None:
    found = read(tmp_path, page(region("r1", f'<TextLine id="l1"><Coords points="0,0 9,0 9,9"/>{equiv}</TextLine>')))
    assert texts(found) == [""]


@pytest.mark.parametrize("coords", ["", '<Coords points=""/>', "<Coords/>"])
def test_a_line_without_coordinates_has_no_polygon(tmp_path: Path, coords: str) -> None:
    found = read(tmp_path, page(region("r1", f'<TextLine id="l1">{coords}<Baseline points="1,5 9,6"/></TextLine>')))
    assert found.lines[0].polygon == []
    assert found.lines[0].baseline == [(1, 5), (9, 6)]


def test_points_of_page_2010_are_elements(tmp_path: Path) -> None:
    coords = '<Coords><Point x="1" y="2"/><Point x="30" y="2"/><Point x="30" y="44"/></Coords>'
    found = read(tmp_path, page(region("r1", f'<TextLine id="l1">{coords}</TextLine>')))
    assert found.lines[0].polygon == [(1, 2), (30, 2), (30, 44)]


@pytest.mark.parametrize("namespace", [ALTO_NS, ALTO_NS.replace("v4", "v2"), ""])
def test_alto_is_read_with_any_namespace_and_without(tmp_path: Path, namespace: str) -> None:
    shape = '<Shape><Polygon POINTS="1,2 40,2 40,12"/></Shape>'
    one = f'<TextLine ID="l1" BASELINE="1 9 40 10">{shape}<String CONTENT="un mot"/></TextLine>'
    found = read(tmp_path, alto(one, namespace))
    assert (found.image, found.width, found.height) == ("p1.jpg", 300, 200)
    assert found.lines == [Line("l1", "un mot", [(1, 2), (40, 2), (40, 12)], [(1, 9), (40, 10)], "b1")]


@pytest.mark.parametrize("points", ["1,2 40,2 40,12", "1 2 40 2 40 12", "1,2,40,2,40,12", "1.0 2.0 40.0,2.0  40 12\n"])
def test_points_are_read_in_either_form(tmp_path: Path, points: str) -> None:
    found = read(tmp_path, alto(f'<TextLine ID="l1"><Shape><Polygon POINTS="{points}"/></Shape></TextLine>'))
    assert found.lines[0].polygon == [(1, 2), (40, 2), (40, 12)]


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ('<String CONTENT="un"/><SP/><String CONTENT="mot"/>', "un mot"),
        ('<String CONTENT="un"/><String CONTENT="mot"/>', "un mot"),
        ('<String CONTENT="l&apos;"/><String CONTENT="an"/><SP/><String CONTENT="x"/>', "l'an x"),
        ('<String CONTENT="un mot"/>', "un mot"),
        ('<String CONTENT="un"/><SP/><String CONTENT="exem"/><HYP CONTENT="-"/>', "un exem-"),
        ('<String CONTENT="exem"/><HYP CONTENT="-"/>', "exem-"),
        ('<String CONTENT="exem" SUBS_TYPE="HypPart1" SUBS_CONTENT="exemple"/><HYP CONTENT="­"/>', "exem-"),
        ('<String CONTENT="ple" SUBS_TYPE="HypPart2" SUBS_CONTENT="exemple"/>', "ple"),
        ('<String CONTENT="exem"/><HYP/>', "exem-"),
        ('<String CONTENT="un&#10; mot"/>', "un mot"),
        ("", ""),
    ],
)
def test_alto_text_is_its_strings_spaces_and_hyphen(tmp_path: Path, parts: str, text: str) -> None:
    assert texts(read(tmp_path, alto(f'<TextLine ID="l1">{parts}</TextLine>'))) == [text]


def test_an_alto_line_with_a_box_only_has_its_corners(tmp_path: Path) -> None:
    found = read(tmp_path, alto('<TextLine ID="l1" HPOS="5" VPOS="7" WIDTH="100" HEIGHT="20"/>'))
    assert found.lines[0].polygon == [(5, 7), (105, 7), (105, 27), (5, 27)]


def test_an_alto_line_without_box_and_polygon_has_none(tmp_path: Path) -> None:
    assert read(tmp_path, alto('<TextLine ID="l1" HPOS="5" VPOS="7"/>')).lines[0].polygon == []


def test_an_empty_polygon_falls_back_to_the_box(tmp_path: Path) -> None:
    box = 'HPOS="5" VPOS="7" WIDTH="100" HEIGHT="20"'
    found = read(tmp_path, alto(f'<TextLine ID="l1" {box}><Shape><Polygon POINTS=""/></Shape></TextLine>'))
    assert found.lines[0].polygon == [(5, 7), (105, 7), (105, 27), (5, 27)]


def test_a_baseline_of_one_number_has_no_slope(tmp_path: Path) -> None:
    found = read(tmp_path, alto('<TextLine ID="l1" BASELINE="33.5" HPOS="5" VPOS="7" WIDTH="10" HEIGHT="20"/>'))
    assert found.lines[0].baseline == []
    assert baseline_angle(found.lines[0].baseline) == 0


@pytest.mark.parametrize(
    ("baseline", "angle"),
    [
        ([(0, 0), (10, 0)], 0),
        ([(0, 0), (5, 99), (10, 10)], 45),
        ([(0, 10), (10, 0)], -45),
        ([(0, 9), (0, 0)], -90),
        ([(9, 0), (0, 0)], 180),
        ([(1, 1)], 0),
        ([], 0),
    ],
)
def test_the_angle_of_a_baseline_is_downhill(baseline: list[tuple[float, float]], angle: float) -> None:
    assert baseline_angle([(float(x), float(y)) for x, y in baseline]) == pytest.approx(angle)


def test_lines_without_an_id_get_one_of_their_own(tmp_path: Path) -> None:
    bare = '<TextLine><Coords points="0,0 9,0 9,9"/></TextLine>'
    found = names(read(tmp_path, page(region("r1", bare, bare, inner=region("r3", bare)) + region("r2", bare))))
    assert len(found) == len(set(found)) == 4
    bare = '<TextLine HPOS="5" VPOS="7" WIDTH="100" HEIGHT="20"/>'
    found = names(read(tmp_path, alto(f'{bare}</TextBlock><TextBlock ID="b2">{bare}')))
    assert len(found) == len(set(found)) == 2


@pytest.mark.parametrize("unit", ["mm10", "inch1200"])
def test_alto_in_another_unit_is_refused(tmp_path: Path, unit: str) -> None:
    with pytest.raises(InputError, match=unit):
        read(tmp_path, alto("", description=f"<MeasurementUnit>{unit}</MeasurementUnit>"))


@pytest.mark.parametrize("size", ["inf", "1e999", "nan", "", "wide", "-"])
def test_a_size_that_is_not_a_number_is_ignored(tmp_path: Path, size: str) -> None:
    found = read(tmp_path, page("", size=f'imageWidth="{size}" imageHeight="200"'))
    assert (found.width, found.height) == (0, 200)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"plain",
        b"<PcGts><Page></PcGts>",
        b"\xff\xfe\x00",
        b"<?xml version='1.0' encoding='klingon'?><a/>",
        b"\x89PNG\r\n",
    ],
)
def test_what_is_no_xml_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InputError, match=r"p1\.xml: not well-formed"):
        read(tmp_path, content)


def test_another_root_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="<html>"):
        read(tmp_path, '<html xmlns="http://www.w3.org/1999/xhtml"/>')


def test_page_without_a_page_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no <Page> element"):
        read(tmp_path, f"<PcGts {PAGE_NS}/>")
    with pytest.raises(InputError, match="expected 1 <Page> element, got 0"):
        read(tmp_path, f"<alto {ALTO_NS}/>")


def test_a_missing_file_and_a_folder_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.xml"):
        read_page(tmp_path / "nothing.xml")
    with pytest.raises(InputError, match=tmp_path.name):
        read_page(tmp_path)


@pytest.mark.parametrize("form", ["PAGE", "ALTO"])
def test_a_damaged_file_is_read_or_refused_but_nothing_else(tmp_path: Path, write_page, form: str) -> None:
    content, dice = write_page(tmp_path, ["un é", "deux"], form=form).read_bytes(), random.Random(form)
    read_well = 0
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(dice.randrange(1, 3)):
            damaged[dice.randrange(len(damaged))] = dice.choice(b"0123456789 <>\"'/=,.-eainf\xff\x00")
        with suppress(InputError):
            read_well += bool(read(tmp_path, bytes(damaged)).lines)
    assert read_well


ENTITIES = {
    "exponential": '<!ENTITY e0 "bomb">' + "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10)),
    "quadratic": f'<!ENTITY e9 "{"bomb" * 100_000}">',
    "file": '<!ENTITY e9 SYSTEM "file:///etc/passwd">',
    "parameter": '<!ENTITY % e9 SYSTEM "file:///etc/passwd"> %e9;',
}


@pytest.mark.parametrize("kind", ENTITIES)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be"])
def test_entities_are_refused(tmp_path: Path, kind: str, encoding: str) -> None:
    xml = f"<!DOCTYPE a [{ENTITIES[kind]}]>" + page(region("r", line("l", "&e9;" * 9)))
    with pytest.raises(InputError, match="internal DTD"):
        read(tmp_path, xml.encode(encoding))


@pytest.mark.parametrize("depth", [101, 5_000, 100_000])
@pytest.mark.parametrize("name", ["TextRegion", "OrderedGroup", "x"])
def test_what_is_nested_too_deeply_is_refused(tmp_path: Path, name: str, depth: int) -> None:
    with pytest.raises(InputError, match="nested more than 100 levels"):
        read(tmp_path, page(f"<{name}>" * depth + f"</{name}>" * depth))


def test_what_is_nested_deeply_is_read(tmp_path: Path) -> None:
    nested = line("l1")
    for number in range(90):
        nested = region(f"r{number}", inner=nested)
    assert names(read(tmp_path, page(nested))) == ["l1"]


def test_what_is_larger_than_any_page_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="too large"):
        read(tmp_path, page("<!--" + "x" * 10_000_000 + "-->"))
    with pytest.raises(InputError, match="too many tags and attributes"):
        read(tmp_path, page("<a/>" * 1_000_001))


def test_sizes_and_indices_beyond_any_page_are_ignored(tmp_path: Path) -> None:
    found = read(tmp_path, page("", size=f'imageWidth="{"9" * 5000}" imageHeight="-5"'))
    assert (found.width, found.height) == (0, 0)
    lines = [line(f"l{n}", custom=f"readingOrder {{index:{'9' * 5000};}}") for n in range(2)]
    assert names(read(tmp_path, page(region("r", *lines)))) == ["l0", "l1"]


@pytest.mark.parametrize("form", ["PAGE", "ALTO"])
@pytest.mark.parametrize("before", [0, 100_000], ids=["short", "long"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_the_head_of_a_page_is_that_of_the_whole_file(
    tmp_path: Path, write_page, form: str, before: int, encoding: str
) -> None:
    path = write_page(tmp_path, ["un"], "été & co", form)
    content = path.read_text(encoding="utf-8").replace("été & co.png", "été &amp; co.png")
    start = content.index(">") + 1
    path.write_text(content[:start] + f"<!--{'x' * before}-->" + content[start:], encoding=encoding)
    assert read_head(path) == ({"PAGE": "PcGts", "ALTO": "alto"}[form], "été & co.png")
    assert read_page(path).image == "été & co.png"


@pytest.mark.parametrize(
    ("content", "head"),
    [
        ("<TEI xmlns='x'><fileName>a.png</fileName></TEI>", ("TEI", "")),
        ("<mets:mets xmlns:mets='x'/>", ("mets", "")),
        ("<!DOCTYPE PcGts><PcGts><Page imageFilename='a.png'/></PcGts>", ("PcGts", "a.png")),
        ("<PcGts><Page imageFilename='a.png'><TextRegion></PcGts>", ("PcGts", "a.png")),
        ("<PcGts/>", ("PcGts", "")),
        ("<alto><Layout><Page/></Layout></alto>", ("alto", "")),
    ],
)
def test_the_head_tells_pages_from_other_files(tmp_path: Path, content: str, head: tuple[str, str]) -> None:
    (tmp_path / "p.xml").write_text(content)
    assert read_head(tmp_path / "p.xml") == head


@pytest.mark.parametrize(
    "content", ["", "plain", "<!DOCTYPE a [<!ENTITY e 'x'>]><PcGts><Page imageFilename='&e;'/></PcGts>"]
)
def test_a_file_that_is_not_xml_has_no_head(tmp_path: Path, content: str) -> None:
    (tmp_path / "p.xml").write_text(content)
    with pytest.raises(InputError, match=r"p\.xml: "):
        read_head(tmp_path / "p.xml")


# File: lines, lines with text, lines without Coords, size; as stated in the READMEs of the samples.
SAMPLES = {
    "rasam/BULAC_MS_ARA_65_149902.xml": (115, 109, 0, (2150, 3049)),
    "rasam/BULAC_MS_ARA_1982_181992.xml": (49, 49, 0, (2900, 4413)),
    "rasam/BULAC_MS_ARA_1944_0043.xml": (27, 0, 27, (982, 1343)),
    "rasam/BULAC_MS_ARA_1944_0035.xml": (26, 0, 26, (982, 1329)),
    "tarima/BnF-2297_btv1b11001977p_7.xml": (47, 47, 0, (4736, 3552)),
    "tarima/MMSH_IREMAM_ARA_MS_011_000089.xml": (29, 29, 29, (2134, 2845)),
    "tarima/BnF-7024_btv1b10031132f_25.xml": (12, 12, 0, (4827, 3177)),
    "tarima/MMSH_MS_056_0365.xml": (26, 26, 0, (955, 1417)),
    "chi_know_po/BULAC_BIULO_CHI_1938_2_0105.xml": (148, 147, 0, (3811, 5525)),
    "chi_know_po/BULAC_BIULO_CHI_1938_2_0058.xml": (139, 138, 0, (3811, 5651)),
    "chi_know_po/CDF_IHEC_FX2_9_66_0002.xml": (23, 17, 7, (3531, 3144)),
    "chi_know_po/BULAC_BIULO_CHI_1938_1_0117.xml": (75, 74, 0, (3905, 5658)),
    "testaments/TestamentsDePoilus_will_AD78_0005-0.xml": (1, 1, 0, (1416, 1832)),
    "testaments/TestamentsDePoilus_will_AD78_0005-1.xml": (12, 12, 0, (1912, 3072)),
    "testaments/TestamentsDePoilus_will_AD78_0064-4.xml": (46, 46, 0, (2496, 3840)),
    "testaments/TestamentsDePoilus_will_AN_0292-2.xml": (0, 0, 0, (1893, 1370)),
    "testaments/TestamentsDePoilus_will_AD95_0039-2.xml": (3, 3, 0, (1827, 1444)),
    "testaments/TestamentsDePoilus_will_AN_0252-2.xml": (6, 6, 0, (1428, 1818)),
    "testaments/TestamentsDePoilus_will_AD78_0006-0.xml": (30, 30, 0, (1728, 3072)),
    "testaments/TestamentsDePoilus_will_AN_0248-1.xml": (24, 24, 0, (2683, 3382)),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_pages_of_others_have_the_lines_that_others_counted(htr_data: Path, name: str) -> None:
    lines, with_text, without_coords, size = SAMPLES[name]
    found = read_page(htr_data / "samples" / name)
    assert len(found.lines) == lines
    assert sum(bool(line.text.strip()) for line in found.lines) == with_text
    assert sum(not line.polygon for line in found.lines) == without_coords
    assert (found.width, found.height) == size
    assert len(set(names(found))) == lines
