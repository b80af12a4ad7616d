"""Write ALTO XML (https://github.com/altoxml/schema): new files of version 4.4, and changed ones."""

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent

from htr_lightning.data.page import alto
from htr_lightning.data.page.page import Line, Page, Points, Word, bounding_box, box_corners
from htr_lightning.data.page.write_page import INSTANCE, region_box
from htr_lightning.data.page.written import (
    SOFTWARE,
    STEP,
    About,
    Hyphenated,
    Ids,
    hyphenations,
    insert,
    now,
    pairs,
    remove,
)
from htr_lightning.data.page.xml import Document, child, local, parse_document
from htr_lightning.version import __version__

NAMESPACE = "http://www.loc.gov/standards/alto/ns-v4#"
SCHEMA = "http://www.loc.gov/standards/alto/v4/alto-4-4.xsd"
DIRECTIONS = {name: code for code, name in alto.DIRECTIONS.items()}
DESCRIBED = ("MeasurementUnit", "sourceImageInformation", "OCRProcessing", "Processing")  # in the order of the schema


def new_page(page: Page, about: About) -> bytes:
    """Return a page as an ALTO 4.4 file, which common transcription editors can open."""
    location = f"{NAMESPACE} {SCHEMA}"
    root = Element(
        "alto", {"xmlns": NAMESPACE, "xmlns:xsi": INSTANCE, "xsi:schemaLocation": location, "SCHEMAVERSION": "4.4"}
    )
    writer = _Writer("", 4, Ids(), about)
    description = SubElement(root, "Description")
    SubElement(description, "MeasurementUnit").text = "pixel"
    information = SubElement(description, "sourceImageInformation")
    SubElement(information, "fileName").text = page.image or f"{page.path.stem}.jpg"
    size = {"WIDTH": str(page.width), "HEIGHT": str(page.height)}
    body = SubElement(
        SubElement(root, "Layout"), "Page", {"ID": writer.ids.new("page"), "PHYSICAL_IMG_NR": "1", **size}
    )
    space = SubElement(body, "PrintSpace", {"HPOS": "0", "VPOS": "0", **size})
    last: tuple[str, Element] | None = None
    for line, divided, before in _divided(page.lines):
        if last is None or last[0] != line.region:  # lines of a region that are apart in reading order get two blocks
            outline = page.regions.get(line.region) or region_box(page, line.region)
            block = SubElement(space, "TextBlock", {"ID": writer.ids.new(line.region or "block"), **_box(outline)})
            if line.orientation:
                block.set("ROTATION", f"{line.orientation:g}")
            block.append(writer.shape(outline))
            last = line.region, block
        outline = line.polygon or region_box(page, line.region)
        element = SubElement(last[1], "TextLine", {"ID": writer.ids.new(line.id), **_box(outline)})
        if line.baseline:
            element.set("BASELINE", pairs(line.baseline, " "))
        if line.direction in DIRECTIONS:
            element.set("BASEDIRECTION", DIRECTIONS[line.direction])
        element.append(writer.shape(outline))
        writer.add_text(element, line, divided, before)
    writer.tell(root)
    indent(root)
    return Document("", root, "").written()


def edit_page(path: Path, lines: Sequence[Line], about: About) -> bytes:
    """Return an ALTO file with the texts of its transcribed lines, and with everything else as it was.

    Args:
        path: path to the original file.
        lines: all lines of the page, in reading order; those without a confidence keep their text.
        about: what is said about the texts.
    """
    document = parse_document(path)
    root = document.root
    version = re.search(r"alto/ns-v(\d)", " ".join(root.attrib.values()))
    writer = _Writer(root.tag.removesuffix("alto"), int(version[1]) if version else 4, Ids(root), about)
    elements = [element for element, _ in alto.lines(path, root)]
    for element, (line, divided, before) in zip(elements, _divided(lines), strict=True):
        if line.confidence is not None:
            remove(element, ("String", "SP", "HYP"))
            writer.add_text(element, line, divided, before)
    writer.tell(root)
    return document.written()


def set_image(root: Element, name: str) -> None:
    """Set the name of the image in an <alto> element with a description (see `_Writer.tell`)."""
    prefix, parent = root.tag.removesuffix("alto"), child(root, "Description")
    assert parent is not None
    for key in ("sourceImageInformation", "fileName"):
        if (found := child(parent, key)) is None:
            found = Element(prefix + key)
            insert(parent, [found], [one for one in map(local, parent) if one != "MeasurementUnit"])
        parent = found
    parent.text = name


def _divided(lines: Sequence[Line]) -> list[tuple[Line, Hyphenated | None, Hyphenated | None]]:
    """Return lines with the words that are divided at their end and at their beginning."""
    found = hyphenations(lines)
    return list(zip(lines, found, [None, *found], strict=False))


def _box(points: Points) -> dict[str, str]:
    left, top, right, bottom = (max(0, round(side)) for side in bounding_box(points))
    return {"HPOS": str(left), "VPOS": str(top), "WIDTH": str(right - left), "HEIGHT": str(bottom - top)}


class _Writer:
    """Elements of an ALTO file.

    Args:
        prefix: namespace prefix of their names.
        version: major version of the file.
        ids: ids of the file.
        about: what is said about the texts.
    """

    def __init__(self, prefix: str, version: int, ids: Ids, about: About) -> None:
        self.prefix, self.version, self.ids, self.about = prefix, version, ids, about

    def element(self, name: str, text: str | None = None, /, **attributes: str) -> Element:
        found = Element(self.prefix + name, attributes)
        found.text = text
        return found

    def shape(self, points: Points) -> Element:
        shape = self.element("Shape")
        shape.append(self.element("Polygon", POINTS=pairs(points, " ")))
        return shape

    def add_text(self, element: Element, line: Line, divided: Hyphenated | None, before: Hyphenated | None) -> None:
        """Add the strings, spaces and hyphen of a line.

        Without words, the whole line is one string.

        Args:
            element: the line.
            line: its text.
            divided: word that is divided at the end of the line.
            before: word that is divided at the end of the previous line.
        """
        words = list(line.words)
        if not words:
            whole = {"CONTENT": line.text} | ({} if line.confidence is None else {"WC": str(line.confidence)})
            box = _box(line.polygon) if line.polygon else {}
            insert(element, [self.element("String", **box, **whole)])
            return
        hyphen: Element | None = None
        if self.about.exchanged:  # eScriptorium reads strings only, and would lose hyphens
            divided = before = None
        if divided is not None:
            words[-1], hyphen = self._without_hyphen(words[-1], divided)
        parts: list[Element] = []
        for number, word in enumerate(words, start=1):
            string = self.element(
                "String",
                ID=self.ids.new(f"{line.id}_w{number}"),
                **_box(word.polygon),
                CONTENT=word.text,
                WC=str(word.confidence),
            )
            if number == 1 and before is not None:
                string.attrib |= {"SUBS_TYPE": "HypPart2", "SUBS_CONTENT": before.whole}
            if number == len(words) and divided is not None:
                string.attrib |= {"SUBS_TYPE": "HypPart1", "SUBS_CONTENT": divided.whole}
            if self.version >= 4:
                string.append(self.shape(word.polygon))
                string.extend(map(self._glyph, word.glyphs if self.about.glyphs else ()))
            parts += [self.element("SP")] * (number > 1) + [string]
        insert(element, [*parts, *([] if hyphen is None else [hyphen])])

    def tell(self, root: Element) -> None:
        """Say how the texts were made, when, and in which language they are."""
        description = child(root, "Description")
        if description is None:
            description = self.element("Description")
            description.append(self.element("MeasurementUnit", "pixel"))
            insert(root, [description], [local(e) for e in root])
        step = outer = self.element("Processing" if self.version >= 4 else "OCRProcessing", ID=self.ids.new("htr"))
        if self.version >= 4:
            step.append(self.element("processingCategory", "contentGeneration"))
        else:
            step = self.element("ocrProcessingStep")
            outer.append(step)
        step.append(self.element("processingDateTime", now()))
        step.append(self.element("processingStepDescription", STEP))
        if self.about.model:
            step.append(self.element("processingStepSettings", f"model: {self.about.model}"))
        software = self.element("processingSoftware")
        software.extend((self.element("softwareName", SOFTWARE), self.element("softwareVersion", __version__)))
        step.append(software)
        insert(description, [outer], [name for name in map(local, description) if name not in DESCRIBED])
        for block in root.iter() if self.about.language else ():
            if local(block) == "TextBlock" and not {"LANG", "language"} & set(block.attrib):
                block.set("LANG", self.about.language)

    def _glyph(self, glyph: Word) -> Element:
        return self.element("Glyph", **_box(glyph.polygon), CONTENT=glyph.text, GC=str(glyph.confidence))

    def _without_hyphen(self, word: Word, divided: Hyphenated) -> tuple[Word, Element]:
        *glyphs, hyphen = word.glyphs
        outline = box_corners(*bounding_box([point for glyph in glyphs for point in glyph.polygon]))
        rest = Word(word.text.removesuffix(divided.hyphen), outline, word.confidence, tuple(glyphs))
        return rest, self.element("HYP", **_box(hyphen.polygon), CONTENT=divided.hyphen)
