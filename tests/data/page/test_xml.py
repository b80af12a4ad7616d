"""Coordinates, texts and whole files of XML that nobody has checked before."""

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr_lightning.data.page.document import read_page
from htr_lightning.data.page.page import Points
from htr_lightning.data.page.xml import MAX_MARKS, number, one_line, parse, points
from htr_lightning.errors import InputError

coordinates = st.floats(-1e6, 1e6).map(lambda value: float(f"{value:.9g}"))
NOT_NUMBERS = ["NaN,NaN NaN,NaN 10,10", "inf,2 3,4 5,6", "a,b", "1,2 x,4 5,6", "10;20 30;40", "1_0,2 3,4", "٣,٤ 1,2"]
NOT_NUMBERS += ["0x10,1 2,2", "1,,2 3,4", "1-2,3 4,5", "e,e", "None,3 4,5", "1.2.3,4 5,6", "--1,2"]


@given(st.lists(st.tuples(coordinates, coordinates), min_size=1), st.sampled_from(["{:.9g}", "{:.9e}", "{:+.9g}"]))
def test_points_in_any_form_are_read_back(wanted: Points, form: str) -> None:
    pairs = [(form.format(x), form.format(y)) for x, y in wanted]
    flat = [value for pair in pairs for value in pair]
    for text in (
        " ".join(f"{x},{y}" for x, y in pairs),
        "\n".join(f"{x} , {y}" for x, y in pairs),
        ", ".join(f"{x},{y}" for x, y in pairs),
        " ".join(flat),
        ",".join(flat),
        f"\t{'  '.join(flat)} ,",
    ):
        assert points(text) == (wanted, "")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        *((text, "not numbers") for text in NOT_NUMBERS),
        ("1e300,0 1,1", "out of range"),
        ("1e999,0 1,1", "out of range"),
        ("99999999999,10 3,4", "out of range"),
        ("10,10 200,10 200,50 10", "odd number of coordinates"),
        ("1 2 3", "odd number of coordinates"),
        # decimal commas, and points that lack y
        ("10,5,20,5 30,5,20,5", "commas do not separate x from y"),
        ("1,2 3 4,5 6", "commas do not separate x from y"),
        ("1,2 " * 60_000, "too many points"),
    ],
)
def test_invalid_coordinates_are_returned_with_the_reason(text: str, reason: str) -> None:
    found, fault = points(text)
    assert found == []
    assert fault.endswith(f"': {reason}")
    assert fault.startswith(f"'{text[:20]}"[:20])
    assert len(fault) < 130


@pytest.mark.parametrize("text", [None, "", " ", ",", "33.5"])
def test_no_coordinates_and_a_single_one_are_no_points(text: str | None) -> None:
    assert points(text) == ([], "")


@pytest.mark.parametrize("text", [None, "", "nan", "inf", "-1e999", "wide", "1e8", "1,5", "9" * 5000])
def test_a_number_that_is_none_is_the_default(text: str | None) -> None:
    assert number(text) == 0
    assert number(text, 2.5) == 2.5
    assert number("-1.5e1", 2.5) == -15


BREAKS = ["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]


@pytest.mark.parametrize("mark", BREAKS)
def test_every_kind_of_line_break_becomes_one_space(mark: str) -> None:
    assert one_line(f"un{mark}deux") == "un deux"
    assert one_line(f"{mark} un {mark}{mark} deux  trois{mark}") == "un deux  trois"
    assert one_line(mark) == ""


@pytest.mark.parametrize("text", ["", " ", "  un  mot ", "e\u0301 \u00e9", "a\u00a0b\u200bc", "a\tb"])
def test_a_text_without_line_breaks_is_unchanged(text: str) -> None:
    assert one_line(text) == text


NAMESPACE = "http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15"


def page(inner: str, head: str = "", extra: str = "") -> str:
    return f'{head}<PcGts xmlns="{NAMESPACE}" {extra}><Page imageFilename="p.png">{inner}</Page></PcGts>'


def doctype(subset: str) -> str:
    return f"<!DOCTYPE PcGts [{subset}]>"


TAGS = "<x/>" * 20_000
ATTRIBUTES = " ".join(f'a{n} CDATA "{"y" * 100}"' for n in range(800))
REFUSED: dict[str, tuple[str | bytes, str]] = {
    "a default value": (page(TAGS, doctype(f'<!ATTLIST x a CDATA "{"y" * 79_000}">')), "internal DTD"),
    "many default values": (page(TAGS, doctype(f"<!ATTLIST x {ATTRIBUTES}>")), "internal DTD"),
    "an element type": (page("", doctype("<!ELEMENT x ANY>")), "internal DTD"),
    "an empty subset": (page("", doctype("")), "internal DTD"),
    "UTF-16": (page(TAGS, doctype(f'<!ATTLIST x a CDATA "{"y" * 79_000}">')).encode("utf-16"), "internal DTD"),
    "UTF-16 without a mark": (page("", doctype('<!ENTITY e "x">')).encode("utf-16-be"), "internal DTD"),
    "UTF-7": (b'<?xml version="1.0" encoding="utf-7"?>' + page("").encode(), "not well-formed"),
    "EBCDIC": (b'<?xml version="1.0" encoding="cp037"?>' + page("").encode("cp037"), "not well-formed"),
    "an undefined entity": (page("&e;"), "undefined entity"),
    "an undefined entity of a DTD elsewhere": (
        page("<a>&e;</a>", '<!DOCTYPE a SYSTEM "a.dtd">'),
        "undefined entity &e;",
    ),
    "deep nesting": (page("<x>" * 20_000 + "</x>" * 20_000), "nested more than 100 levels"),
    "nesting without an end": (page("<x>" * 20_000), "not well-formed"),
    "many tags": (page("<a/>" * (MAX_MARKS + 1)), "too many tags and attributes"),
    "many attributes": (page("<a " + "b=''" * MAX_MARKS), "too many tags and attributes"),
    "many tags in UTF-16": (page("<a/>" * MAX_MARKS).encode("utf-16"), "too many tags and attributes"),
    "many comments": (page("<!---->" * MAX_MARKS), "too many tags and attributes"),
    "many lines": (page("<TextLine/>" * 501), "too many lines .501, maximum 500"),
    "a large file": ("x" * 10_000_001, "too large"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_that_would_grow_is_refused_before_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("htr_lightning.data.page.xml.MAX_LINES", 500)
    content, message = REFUSED[kind]
    path = tmp_path / "p.xml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=rf"p\.xml: .*{message}") as refusal:
            read_page(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(str(refusal.value).splitlines()) == 1
    assert peak < 250_000_000


def test_a_long_namespace_is_not_repeated_in_every_name(tmp_path: Path) -> None:
    path = tmp_path / "p.xml"
    names = "".join(f"<n:a{n} n:b{n}=''/>" for n in range(5_000))
    path.write_text(page(names, extra=f'xmlns:n="{"n" * 1_000_000}"'))
    tracemalloc.start()
    try:
        assert len(list(parse(path).iter())) == 5_002
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


def test_a_dtd_elsewhere_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "p.xml"
    (tmp_path / "a.dtd").write_text("<!ELEMENT")
    path.write_text(page('<TextLine id="l"/>', '<!DOCTYPE PcGts SYSTEM "a.dtd">'))
    assert [line.id for line in read_page(path).lines] == ["l"]


def test_a_custom_attribute_is_searched_in_linear_time(tmp_path: Path) -> None:
    path = tmp_path / "p.xml"
    customs = [
        "readingOrder{" * 200_000,
        "readingOrder {" + "index:" * 400_000,
        "readingOrder {" + " index: x" * 200_000,
    ]
    path.write_text(page("".join(f'<TextLine custom="{custom}"/>' for custom in customs)))
    assert len(read_page(path).lines) == 3
