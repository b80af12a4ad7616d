"""Pages of common programs keep all but their texts, stay valid, and are read back with the texts that were written."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import pytest

from htr_lightning.data.page.document import read_page
from htr_lightning.data.page.page import Line
from htr_lightning.data.page.write_page import NAMES
from htr_lightning.data.page.written import About, Ids, hyphenations
from htr_lightning.errors import InputError
from htr_lightning.reading.page_out import page_file
from htr_lightning.reading.sources import Source

from .exchange import faults, kept, schema, transcribed

PAGE = "http://schema.primaresearch.org/PAGE/gts/pagecontent"
BOXES = ["10,10 200,10 200,40 10,40", "10,50 200,50 200,80 10,80", "10,90 200,90 200,120 10,120"]
BASE = ["10,35 200,35", "10,75 200,75", "10,115 200,115"]


def page_line(number: int, inner: str = "<TextEquiv><Unicode>alt</Unicode></TextEquiv>", **attributes: str) -> str:
    added = "".join(f' {key}="{value}"' for key, value in attributes.items())
    return (f'<TextLine id="l{number}"{added}>\n  <Coords points="{BOXES[number]}"/>\n  '
            f'<Baseline points="{BASE[number]}"/>\n  {inner}\n</TextLine>')  # fmt: skip


def alto_line(number: int, inner: str) -> str:
    x, y = BOXES[number].split()[0].split(",")
    return f'<TextLine ID="l{number}" HPOS="{x}" VPOS="{y}" WIDTH="190" HEIGHT="30">\n  {inner}\n</TextLine>'


EQUIV = '<TextEquiv index="{}" conf="0.5"><Unicode>{}</Unicode></TextEquiv>'
WORD = f'<Word id="l1_w1"><Coords points="10,50 90,50 90,80"/>{EQUIV.format(0, "alt")}</Word>'
PLACE = 'HPOS="10" VPOS="10" WIDTH="90" HEIGHT="30"'
PART = f'<String {PLACE} SUBS_TYPE="HypPart{{}}" CONTENT="{{}}" WC="0.5" CC="09" SUBS_CONTENT="alter"/>'
FILES = {
    "eScriptorium PAGE": f"""<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<PcGts xmlns="{PAGE}/2019-07-15">
  <Metadata><Creator>escriptorium</Creator><Created>2024-01-18T17:35:47.771302+00:00</Created>
    <LastChange>2024-01-18T17:35:47.771344+00:00</LastChange></Metadata>
  <Page imageFilename="a.jpg" imageWidth="300" imageHeight="200">
    <TextRegion id="eSc_textblock_1" custom="structure {{type:Main;}}">
      <Coords points="0,0 300,0 300,200 0,200"/>
      {page_line(0)} {page_line(1)} {page_line(2)}
    </TextRegion>
  </Page>
</PcGts>""",
    "Transkribus PAGE": f"""<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<PcGts xmlns="{PAGE}/2013-07-15" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xsi:schemaLocation="{PAGE}/2013-07-15 {PAGE}/2013-07-15/pagecontent.xsd">
  <Metadata><Creator>prov=READ-COOP:name=PyLaia@TranskribusPlatform</Creator><Created>2021-03-01T10:00:00.000+01:00</Created>
    <LastChange>2021-03-02T10:00:00.000+01:00</LastChange><Comments>kept</Comments></Metadata>
  <Page imageFilename="a.jpg" imageWidth="300" imageHeight="200">
    <ReadingOrder><OrderedGroup id="ro_1" caption="Regions reading order"><RegionRefIndexed index="0" regionRef="r2"/>
      <RegionRefIndexed index="1" regionRef="r1"/></OrderedGroup></ReadingOrder>
    <TextRegion type="paragraph" id="r1" custom="readingOrder {{index:1;}}">
      <Coords points="0,0 300,0 300,85 0,85"/>
      {page_line(1, WORD + "<TextEquiv><Unicode>alt</Unicode></TextEquiv>", custom="readingOrder {index:1;}")}
      {page_line(0, custom="readingOrder {index:0;}")}
      <TextEquiv><Unicode>alt
alt</Unicode></TextEquiv>
    </TextRegion>
    <TextRegion id="r2"><Coords points="0,85 300,85 300,130 0,130"/>
      {page_line(2, '<TextEquiv/><TextStyle fontSize="9"/>'.replace("<TextEquiv/>", ""))}</TextRegion>
    <ImageRegion id="i1"><Coords points="0,150 9,150 9,160"/></ImageRegion>
  </Page>
</PcGts>""",
    "OCR-D PAGE": re.sub(r"<(/?)(?=[A-Z])", r"<\1pc:", f"""<?xml version="1.0" encoding="UTF-8"?>
<!-- before --><?tool before?>
<PcGts xmlns:pc="{PAGE}/2019-07-15" pcGtsId="l0_w1">
  <Metadata><Creator>OCR-D/core 2.1</Creator><Created>2023-01-01T00:00:00</Created>
    <LastChange>2023-01-01T00:00:00</LastChange>
    <MetadataItem type="processingStep" name="layout/segmentation/line" value="ocrd-kraken-segment"/></Metadata>
  <Page imageFilename="OCR-D-IMG/a.jpg" imageWidth="300" imageHeight="200" type="content">
    <AlternativeImage filename="b.png" comments="binarized"/>
    <TableRegion id="t1"><Coords points="0,0 300,0 300,200 0,200"/>
      <TextRegion id="c1"><Coords points="0,0 300,0 300,130 0,130"/>
        {page_line(0, EQUIV.format(1, "b") + EQUIV.format(0, "a"))}
        <!-- inside -->
        {page_line(1, WORD)} {page_line(2)}
        <TextEquiv><Unicode>a alt alt</Unicode></TextEquiv>
      </TextRegion></TableRegion>
  </Page>
</PcGts>
<!-- after -->"""),
    "eScriptorium ALTO": f"""<?xml version="1.0" encoding="UTF-8"?>
<alto xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns="http://www.loc.gov/standards/alto/ns-v4#"
  xsi:schemaLocation="http://www.loc.gov/standards/alto/ns-v4# http://www.loc.gov/standards/alto/v4/alto-4-2.xsd">
  <Description><MeasurementUnit>pixel</MeasurementUnit>
    <sourceImageInformation><fileName>a.jpg</fileName></sourceImageInformation></Description>
  <Tags><OtherTag ID="BT1" LABEL="Main" DESCRIPTION="block type Main"/></Tags>
  <Layout><Page WIDTH="300" HEIGHT="200" PHYSICAL_IMG_NR="0" ID="eSc_dummypage_"><PrintSpace>
    <TextBlock ID="eSc_textblock_1" TAGREFS="BT1">
      <Shape><Polygon POINTS="0 0 300 0 300 200 0 200"/></Shape>
      {alto_line(0, '<Shape><Polygon POINTS="10 10 200 10 200 40 10 40"/></Shape><String CONTENT="alt"></String>')}
      {alto_line(1, f'<String CONTENT="alt" {PLACE}/>')} {alto_line(2, f'<String CONTENT="alt" {PLACE}/>')}
    </TextBlock></PrintSpace></Page></Layout>
</alto>""",
    "FineReader ALTO": f"""<?xml version="1.0" encoding="UTF-8"?>
<alto xmlns="http://www.loc.gov/standards/alto/ns-v2#">
  <Description><MeasurementUnit>pixel</MeasurementUnit><OCRProcessing ID="OCR_0"><ocrProcessingStep><processingSoftware>
    <softwareCreator>ABBYY</softwareCreator></processingSoftware></ocrProcessingStep></OCRProcessing></Description>
  <Styles><TextStyle ID="T0" FONTFAMILY="Times New Roman" FONTSIZE="10."/></Styles>
  <Layout><Page ID="P1" PHYSICAL_IMG_NR="1" HEIGHT="200" WIDTH="300">
    <PrintSpace HEIGHT="200" WIDTH="300" HPOS="0" VPOS="0">
    <ComposedBlock ID="C1" {PLACE}><TextBlock ID="B1" {PLACE} STYLEREFS="T0">
      {alto_line(0, PART.format(1, "al") + '<HYP CONTENT="-"/>')}
      {alto_line(1, PART.format(2, "ter") + f'<SP/><String {PLACE} CONTENT="x"/>')}
      {alto_line(2, f'<String {PLACE} CONTENT="alt"/>')}
    </TextBlock></ComposedBlock></PrintSpace></Page></Layout>
</alto>""",
    "kraken ALTO": f"""<?xml version="1.0" encoding="UTF-8"?>
<alto xmlns="http://www.loc.gov/standards/alto/ns-v4#" SCHEMAVERSION="4.3">
  <Description><MeasurementUnit>pixel</MeasurementUnit>
    <Processing ID="htr"><processingStepDescription>x</processingStepDescription></Processing></Description>
  <ReadingOrder><OrderedGroup ID="ro"><ElementRef ID="o1" REF="l2"/><ElementRef ID="o2" REF="l0"/>
    <ElementRef ID="o3" REF="l1"/></OrderedGroup></ReadingOrder>
  <Layout><Page ID="P1" PHYSICAL_IMG_NR="1" HEIGHT="200" WIDTH="300"><PrintSpace {PLACE}><TextBlock ID="B1" {PLACE}>
      {alto_line(0, f'<String {PLACE} CONTENT="a" WC="0.5"><Glyph CONTENT="a" GC="0.5"/></String>')}
      {alto_line(1, f'<String {PLACE} CONTENT="b"/>')} {alto_line(2, f'<String {PLACE} CONTENT="c"/>')}
    </TextBlock></PrintSpace></Page></Layout>
</alto>""",
}  # fmt: skip
SAMPLES = ("samples/testaments", "samples/rasam", "samples/tarima", "samples/chi_know_po")
TEXTS = ["une <exem-", 'ple> & "l\'été" 漢字', ""]


@pytest.fixture(params=FILES)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    found = tmp_path / "a.xml"
    found.write_text(FILES[request.param], encoding="utf-8")
    return found


def form_of(path: Path) -> str:
    return "page" if "PcGts" in path.read_text() else "alto"


@pytest.mark.parametrize("texts", [TEXTS, [None, "neu", None], [None] * 3])
@pytest.mark.parametrize("glyphs", [False, True])
def test_only_what_was_transcribed_changes_in_a_file(path: Path, texts: list[str | None], glyphs: bool) -> None:
    pytest.importorskip("lxml")
    before, old = read_page(path), path.read_bytes()
    source = Source(path, "none", True)
    path.write_bytes(page_file(source, transcribed(path, texts), form_of(path), About("m", glyphs=glyphs)))
    after = read_page(path)
    assert [line.text for line in after.lines] == [
        line.text if text is None else text for line, text in zip(before.lines, texts, strict=True)
    ]
    assert [line._replace(text="") for line in after.lines] == [line._replace(text="") for line in before.lines]
    assert kept(path.read_bytes()) == kept(old)
    content = path.read_text()
    assert content.count("recognition/text-recognition") == 1
    assert "(m)" in content or 'value="m"' in content or "model: m" in content


@pytest.mark.parametrize("form", ["page", "alto"])
@pytest.mark.parametrize("glyphs", [False, True])
def test_what_is_written_is_valid_and_read_back(path: Path, form: str, glyphs: bool) -> None:
    before, source = read_page(path), Source(path, "none", True)
    was = faults(path.read_bytes()) if form == form_of(path) else set()
    path.write_bytes(page_file(source, transcribed(path, TEXTS), form, About("m", "fr", glyphs)))
    assert not faults(path.read_bytes()) - was
    assert [(line.id, line.text) for line in read_page(path).lines] == [
        (line.id, text) for line, text in zip(before.lines, TEXTS, strict=True)
    ]


def test_the_schemas_find_what_is_wrong(tmp_path: Path) -> None:
    schema("page-2019-07-15.xsd")
    content = FILES["eScriptorium PAGE"].encode()
    assert not faults(content)
    assert faults(content.replace(b"<TextEquiv>", b"<TextEquiv conf='2'>"))


@pytest.mark.parametrize("form", ["page", "alto"])
def test_words_have_boxes_and_full_confidences(path: Path, form: str) -> None:
    lines = transcribed(path, ["ab cd", "", "e"])
    root = ElementTree.fromstring(page_file(Source(path, "none", True), lines, form, About(glyphs=True)))
    names = {"page": ("Word", "Glyph"), "alto": ("String", "Glyph")}[form]
    words, glyphs = ([e for e in root.iter() if e.tag.endswith(f"}}{name}")] for name in names)
    if form == "page":
        found = {word[-1][0].text: word for word in words}
        places = [int(n) for n in re.findall(r"\d+", found["ab"][0].attrib["points"])][::2]
        confidences = {text: float(word[-1].attrib["conf"]) for text, word in found.items()}
        assert 'conf="0.123456789"' in ElementTree.tostring(root).decode()  # of lines
    else:
        found = {word.attrib["CONTENT"]: word for word in words}
        left, width = (int(found["ab"].attrib[key]) for key in ("HPOS", "WIDTH"))
        places = [left, left + width]
        confidences = {text: float(word.attrib["WC"]) for text, word in found.items() if text}
    assert (min(places), max(places)) == (10, 86)  # two fifths of the line, which reaches from 10 to 200
    expected = {"ab": (0.5 * 0.625) ** 0.5, "cd": (0.875 * 1) ** 0.5, "e": 0.5}
    assert confidences == pytest.approx(expected)
    assert len(glyphs) == (0 if "v2#" in root.tag else 5)


def test_a_divided_word_is_whole_in_alto(path: Path) -> None:
    lines = transcribed(path, ["(exem-", "ple), peut-", "Être"])
    root = ElementTree.fromstring(page_file(Source(path, "none", True), lines, "alto", About(glyphs=True)))
    strings = [e for e in root.iter() if e.tag.endswith("}String")]
    by_content = {e.attrib["CONTENT"]: e for e in strings}
    if "r2" in path.read_text():  # the first line is in another region
        assert "(exem-" in by_content
        return
    assert by_content["(exem"].attrib["SUBS_CONTENT"] == by_content["ple),"].attrib["SUBS_CONTENT"] == "exemple"
    assert by_content["(exem"].attrib["SUBS_TYPE"] == "HypPart1"
    assert by_content["ple),"].attrib["SUBS_TYPE"] == "HypPart2"
    assert "SUBS_TYPE" not in by_content["peut-"].attrib  # a name follows
    assert [e.attrib["CONTENT"] for e in root.iter() if e.tag.endswith("}HYP")] == ["-"]


def test_hyphens_that_divide_words() -> None:
    def divided(first: str, second: str, region: str = "r") -> bool:
        return hyphenations([Line("a", first, [], [], "r"), Line("b", second, [], [], region)])[0] is not None

    assert all(divided(f"exem{hyphen}", "ple") for hyphen in ("-", "\u2010", "¬", "="))
    assert not any(map(divided, ("exem -", "exem", "18-", "exem-", "exem-"), ("ple", "ple", "ple", "Ple", "")))
    assert not divided("exem-", "ple", "another region")
    (word, _) = hyphenations([Line("a", "de l'en-", [], [], "r"), Line("b", "teil,", [], [], "r")])
    assert word is not None
    assert word.whole == "l'enteil"


def test_ids_are_valid_and_given_once() -> None:
    ids = Ids(ElementTree.fromstring('<a id="x_w1"><b ID="y"/></a>'))
    names = [ids.new(wanted) for wanted in ("x_w1", "x_w1", "y", "1 a/b", "", "é", "z")]
    assert names == ["x_w1_2", "x_w1_3", "y_2", "_1_a_b", "_", "é", "z"]


def test_the_language_is_stated_where_none_is(path: Path) -> None:
    for form in ("page", "alto"):
        content = page_file(Source(path, "none", True), transcribed(path, TEXTS), form, About(language="fr")).decode()
        assert {"page": 'primaryLanguage="French"', "alto": 'LANG="fr"'}[form] in content
    stated = re.sub(
        "<((?:pc:)?TextRegion|TextBlock|(?:pc:)?Page) ", r'<\1 primaryLanguage="German" LANG="de" ', path.read_text()
    )
    path.write_text(stated)
    again = page_file(
        Source(path, "none", True), transcribed(path, TEXTS), form_of(path), About(language="fr")
    ).decode()
    assert "French" not in again
    assert '"fr"' not in again


def test_languages_are_named_as_in_the_schema() -> None:
    schema("page-2019-07-15.xsd")
    for name in NAMES.values():
        content = FILES["eScriptorium PAGE"].replace("<Page ", f'<Page primaryLanguage="{name}" ')
        assert not faults(content.encode()), name


@pytest.mark.parametrize("form", ["page", "alto"])
def test_files_are_dated_now_or_as_the_environment_says(
    form: str, tmp_path: Path, write_page: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_page(tmp_path)
    made = partial(page_file, Source(path, path.with_suffix(".png"), True), transcribed(path, ["a", "b"]), form)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86399")
    assert b"1970-01-01T23:59:59+00:00" in made()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(InputError, match="SOURCE_DATE_EPOCH=yesterday: expected seconds since 1970"):
        made()
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    before = datetime.now(UTC).replace(microsecond=0)
    dated = re.findall(rb"\d{4}-\d\d-\d\dT[\d:]{8}\+00:00", made())
    assert dated
    assert all(before <= datetime.fromisoformat(one.decode()) <= datetime.now(UTC) for one in dated)


def test_characters_that_xml_cannot_contain_are_replaced(path: Path) -> None:
    lines = transcribed(path, ["a\x00b\x1bc", "\ud800", "\ufffe"])
    for form in ("page", "alto", "hocr"):
        ElementTree.fromstring(page_file(Source(path, "none", True), lines, form))


def test_real_pages_keep_all_but_their_texts(htr_data: Path) -> None:
    pytest.importorskip("lxml")
    files = [sorted((htr_data / folder).glob("*.xml")) for folder in ("copiste/alto", *SAMPLES)]
    for some in files:
        assert len(some) > 2
        for path in some[:3]:
            texts = ["neu- er" if number % 3 else None for number in range(len(read_page(path).lines))]
            old, lines = path.read_bytes(), transcribed(path, texts)
            new = page_file(Source(path, "none", True), lines, form_of(path))
            assert kept(new) == kept(old), path
            assert not faults(new) - faults(old), path
