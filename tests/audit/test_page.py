"""The page of an audit shows any name and text as text."""

import re
import unicodedata
from collections.abc import Sequence
from html.parser import HTMLParser

import numpy as np
import pytest

from htr_lightning.audit.faults import audit
from htr_lightning.audit.page import page
from htr_lightning.data.preprocess import FitHeight
from htr_lightning.data.sample import Sample, Skipped
from htr_lightning.html import LONGEST
from htr_lightning.text.normalize import Normalizer

HOSTILE = {
    "markup": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "quotes": "\"' onload='alert(1)' `",
    "entity": "&lt;b&gt; &#60;",
    "escape sequence": "a\x1b[31mred\x1b]0;title\x07b",
    "override": "abc\u202edef\u2066ghi",
    "lines": "a\nb\r\nc\u2028d",
    "null": "a\0b",
    "surrogate": "a\udcffb",
    "long": "x" * 10_000,
    "marks": "a" + "\u0301" * 10_000,
    "invisible": "a\u200bb\u00adc\U000e0041",
}
TAGS = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "div", "img", "span", "a", "bdi"}
TAGS |= {"table", "thead", "tr", "th", "td"}
ATTRIBUTES = {"class", "id", "href", "src", "alt", "loading", "dir", "charset", "lang"}
META = {"http-equiv", "content", "name"}
IMAGE = np.full((40, 200), 230, np.uint8)


class Lines(Sequence[Sample]):
    """A reader whose ids, texts and groups are given."""

    def __init__(self, name: str) -> None:
        self.ids, self.texts, self.groups = [name, "sound"], [name, "sound"], [name, "sound"]
        self.sizes = [IMAGE.shape] * 2
        self.skipped = [Skipped(name, name, name, "faulty")]

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        return Sample(self.ids[index], IMAGE, self.texts[index], self.groups[index])


class Document(HTMLParser):
    """The text and the tags of a page, after checking that tags are closed in order."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.text, self.tags, self.anchors, self.links = "", set[str](), set[str](), set[str]()
        self.open: list[str] = []
        self.feed(content)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        assert values.keys() <= ATTRIBUTES | (META if tag == "meta" else set())
        self.tags.add(tag)
        self.anchors |= {str(values["id"])} if "id" in values else set()
        self.links |= {str(values["href"])[1:]} if "href" in values else set()
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("name", HOSTILE)
def test_names_and_texts_stay_text(name: str) -> None:
    hostile = HOSTILE[name]
    readers = {"train": Lines(hostile), "val": Lines(hostile)}
    found = audit(readers, Normalizer("", collapse_spaces=False), FitHeight(32))
    assert any(hostile in fault.id for fault in found.faults)
    content = page(hostile, found, [], readers)
    document = Document(content)
    assert document.tags <= TAGS
    assert document.links <= document.anchors
    categories = {character: unicodedata.category(character) for character in set(document.text) - {"\n"}}
    assert not {c for c, category in categories.items() if category in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert all(part in document.text for part in re.findall("[!-~]{2,}", hostile[:LONGEST]))
    for character in set(hostile[:LONGEST]):
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl"):
            assert f"U+{ord(character):04X}" in document.text
    assert len(content) < 60 * (LONGEST * 8 + 2000)
    content.encode()


def test_joiners_that_a_script_needs_are_not_replaced() -> None:
    text = "می\u200cخواهم"
    readers = {"train": Lines(text)}
    assert text in page("x", audit(readers, Normalizer(), FitHeight(32)), [], readers)
