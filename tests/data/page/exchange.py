"""Transcriptions without a recognizer, published schemas, and trees of files without what a transcription changes."""

import os
import re
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from htr_lightning.characters import Character
from htr_lightning.data.page.document import read_page
from htr_lightning.data.page.page import bounding_box
from htr_lightning.reading.sources import Source
from htr_lightning.reading.transcribe import TranscribedLine
from htr_lightning.transcription import Transcription

XLINK = """<schema xmlns="http://www.w3.org/2001/XMLSchema" targetNamespace="http://www.w3.org/1999/xlink"
  attributeFormDefault="qualified">
  <attributeGroup name="simpleLink">
    <attribute name="type" type="string" fixed="simple"/><attribute name="href" type="anyURI"/>
    <attribute name="role" type="string"/><attribute name="arcrole" type="string"/>
    <attribute name="title" type="string"/><attribute name="show" type="string"/>
    <attribute name="actuate" type="string"/>
  </attributeGroup>
  <attributeGroup name="locatorLink"/><attributeGroup name="arcLink"/>
  <attributeGroup name="extendedLink"/>
  <attribute name="label"/><attribute name="from"/><attribute name="to"/><attribute name="arcrole"/>
  <attribute name="title"/><attribute name="show"/><attribute name="actuate"/>
</schema>"""  # what ALTO and METS take from XLink, whose schema they would fetch


def transcribed(path: Path, texts: Sequence[str | None], image: Path | str = "none") -> list[TranscribedLine]:
    """Return the lines of a page with texts in equal boxes for their characters; None for a line that is not read."""
    lines = read_page(path).lines
    found = []
    for line, text in zip(lines, texts, strict=True):
        read = None
        if text is not None:
            left, top, right, bottom = bounding_box(line.polygon or line.baseline or [(0.0, 0.0), (50.0, 20.0)])
            edges = np.linspace(left, right, len(text) + 1).tolist()
            boxes = [((a, top), (b, top), (b, bottom), (a, bottom)) for a, b in pairwise(edges)]
            characters = tuple(map(Character, text, boxes, np.linspace(0.5, 1, len(text)).tolist()))
            read = Transcription(text, 0.123456789, boxes=characters)
        error = None if read else "not read"
        found.append(TranscribedLine(Source(path, image, True), line, read, error, to_page=np.eye(3)))
    return found


@cache
def schema(name: str) -> Any:
    """Return a published schema; the test is skipped if the schemas or lxml are missing."""
    etree = pytest.importorskip("lxml.etree")
    folder = Path(os.environ.get("HTR_DATA", "."), "schemas")
    if not (folder / name).is_file():
        pytest.skip(f"published schemas: set HTR_DATA to a folder with schemas/{name}")

    class Local(etree.Resolver):  # type: ignore[misc]
        def resolve(self, url: str, _id: str, context: Any) -> Any:
            return self.resolve_string(XLINK, context) if url.endswith("xlink.xsd") else None

    parser = etree.XMLParser()
    parser.resolvers.add(Local())
    return etree.XMLSchema(etree.parse(folder / name, parser))


def schema_name(content: bytes) -> str:
    """Return the file name of the published schema of a file."""
    if page := re.search(rb'"\S+/PAGE/gts/pagecontent/([\d-]+)"', content):
        return f"page-{page[1].decode()}.xsd"
    if own := re.search(rb"/(alto-\d-\d)\.xsd", content):
        return f"{own[1].decode()}.xsd"
    namespace = re.search(rb"alto/ns-v(\d)#", content)
    assert namespace
    return {b"2": "alto-2-1.xsd", b"3": "alto-3-1.xsd", b"4": "alto-4-4.xsd"}[namespace[1]]


def faults(content: bytes) -> set[str]:
    """Return what the published schema of a file finds wrong with it, without line numbers."""
    from lxml import etree

    found = schema(schema_name(content))
    found.validate(etree.fromstring(content))
    return {error.message for error in found.error_log}


CHANGED = {
    "Word", "TextEquiv", "String", "SP", "HYP", "MetadataItem", "LastChange", "Comments", "Processing", "OCRProcessing"
}  # fmt: skip


def kept(content: bytes) -> list[tuple[Any, ...]]:
    """Return the nodes of a file, comments included, without texts, words, confidences and the processing step."""
    from lxml import etree

    root = etree.fromstring(content)
    for element in [e for e in root.iter() if isinstance(e.tag, str) and etree.QName(e).localname in CHANGED]:
        element.getparent().remove(element)
    nodes = [*root.itersiblings(preceding=True), *root.iter(), *root.itersiblings()]
    return [
        (node.tag, sorted(node.attrib.items()), (node.text or "").strip(), len(list(node.iterancestors())))
        for node in nodes
    ]
