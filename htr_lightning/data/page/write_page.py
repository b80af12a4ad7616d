"""Write PAGE XML (https://github.com/PRImA-Research-Lab/PAGE-XML): new files and changed ones."""

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent

from htr_lightning.data.page import pagexml
from htr_lightning.data.page.page import Line, Page, Points, bounding_box, box_corners
from htr_lightning.data.page.written import STEP, About, Ids, insert, now, pairs, remove
from htr_lightning.data.page.xml import Document, child, local, parse_document

NAMESPACE = "http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15"
INSTANCE = "http://www.w3.org/2001/XMLSchema-instance"
AFTER_TEXT = ("TextStyle", "UserDefined", "Labels")  # elements that the schema places after the text
NAMES = {
    "ar": "Arabic", "bg": "Bulgarian", "ca": "Catalan", "cs": "Czech", "cy": "Welsh", "da": "Danish", "de": "German",
    "el": "Greek", "en": "English", "es": "Spanish", "et": "Estonian", "eu": "Basque", "fa": "Persian", "fi": "Finnish",
    "fr": "French", "ga": "Irish", "gl": "Galician", "he": "Hebrew", "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian",
    "hy": "Armenian", "is": "Icelandic", "it": "Italian", "ja": "Japanese", "ka": "Georgian", "ko": "Korean",
    "la": "Latin", "lt": "Lithuanian", "lv": "Latvian", "nl": "Dutch", "no": "Norwegian", "oc": "Occitan",
    "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sk": "Slovak", "sl": "Slovene",
    "sr": "Serbian", "sv": "Swedish", "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu", "vi": "Vietnamese",
    "yi": "Yiddish", "zh": "Chinese",
}  # fmt: skip  # of languages in PAGE


def new_page(page: Page, about: About) -> bytes:
    """Return a page as a PAGE 2019 file, or as PAGE 2013, the only version that Transkribus reads, to be exchanged."""
    year = 2013 if about.exchanged else 2019
    namespace = NAMESPACE.replace("2019", str(year))
    location = f"{namespace} {namespace}/pagecontent.xsd"
    root = Element("PcGts", {"xmlns": namespace, "xmlns:xsi": INSTANCE, "xsi:schemaLocation": location})
    size = {"imageWidth": str(page.width), "imageHeight": str(page.height)}
    body = SubElement(root, "Page", {"imageFilename": page.image or f"{page.path.stem}.jpg", **size})
    writer = _Writer("", year, Ids(), about)
    last: tuple[str, Element] | None = None
    for line in page.lines:
        if last is None or last[0] != line.region:  # lines of a region that are apart in reading order get two regions
            region = SubElement(body, "TextRegion", id=writer.ids.new(line.region or "region"))
            if line.orientation:
                region.set("orientation", f"{line.orientation:g}")
            region.append(writer.coords(page.regions.get(line.region) or region_box(page, line.region)))
            last = line.region, region
        element = SubElement(last[1], "TextLine", id=writer.ids.new(line.id))
        if line.direction:
            (element if year > 2013 else last[1]).set("readingDirection", line.direction)
        element.append(writer.coords(line.polygon or region_box(page, line.region)))
        if line.baseline:
            SubElement(element, "Baseline", points=pairs(line.baseline))
        if line.text or line.confidence is not None:
            writer.add_text(element, line)
    writer.tell(root, body)
    indent(root)
    return Document("", root, "").written()


def edit_page(path: Path, lines: Sequence[Line], about: About) -> bytes:
    """Return a PAGE file with the texts of its transcribed lines, and with everything else as it was.

    The words of these lines are replaced, too, as are the texts of their regions, which repeat those of the lines.

    Args:
        path: path to the original file.
        lines: all lines of the page, in reading order; those without a confidence keep their text.
        about: what is said about the texts.
    """
    document = parse_document(path)
    root = document.root
    year = re.search(r"pagecontent/(\d{4})-", " ".join(root.attrib.values()))
    writer = _Writer(root.tag.removesuffix("PcGts"), int(year[1]) if year else 2019, Ids(root), about)
    for (element, _), line in zip(pagexml.lines(path, root), lines, strict=True):
        if line.confidence is not None:
            remove(element, ("Word", "TextEquiv"))
            writer.add_text(element, line)
    for region in [e for e in root.iter() if local(e) == "TextRegion" and child(e, "TextEquiv") is not None]:
        texts = [pagexml.text_of(e) for e in region if local(e) == "TextLine"]
        if texts:
            remove(region, ("TextEquiv",))
            insert(region, [writer.equiv("\n".join(texts), None)], AFTER_TEXT)
    body = child(root, "Page")
    assert body is not None  # or `pagexml.lines` would have raised an error
    writer.tell(root, body)
    return document.written()


def region_box(page: Page, region: str) -> Points:
    """Return the bounding box of the lines in a region, or of the page if the lines have no polygons."""
    corners = [point for line in page.lines if line.region == region for point in line.polygon]
    return box_corners(*bounding_box(corners or [(0.0, 0.0), (float(page.width), float(page.height))]))


class _Writer:
    """Elements of a PAGE file.

    Args:
        prefix: namespace prefix of their names.
        year: version of the file.
        ids: ids of the file.
        about: what is said about the texts.
    """

    def __init__(self, prefix: str, year: int, ids: Ids, about: About) -> None:
        self.prefix, self.year, self.ids, self.about = prefix, year, ids, about

    def element(self, name: str, text: str | None = None, /, **attributes: str) -> Element:
        found = Element(self.prefix + name, attributes)
        found.text = text
        return found

    def coords(self, points: Points) -> Element:
        if self.year > 2010:
            return self.element("Coords", points=pairs(points))
        coords = self.element("Coords")
        coords.extend(self.element("Point", x=x, y=y) for x, y in (one.split(",") for one in pairs(points).split()))
        return coords

    def equiv(self, text: str, confidence: float | None) -> Element:
        equiv = self.element("TextEquiv")
        if confidence is not None and self.year > 2010:
            equiv.set("conf", str(confidence))
        equiv.append(self.element("Unicode", text))
        return equiv

    def add_text(self, element: Element, line: Line) -> None:
        """Add the words and the text of a line."""
        words = []
        for number, (text, polygon, confidence, glyphs) in enumerate(line.words, start=1):
            word = self.element("Word", id=self.ids.new(f"{line.id}_w{number}"))
            word.append(self.coords(polygon))
            for count, glyph in enumerate(glyphs if self.about.glyphs else (), start=1):
                part = self.element("Glyph", id=self.ids.new(f"{line.id}_w{number}_g{count}"))
                part.extend((self.coords(glyph.polygon), self.equiv(glyph.text, glyph.confidence)))
                word.append(part)
            word.append(self.equiv(text, confidence))
            words.append(word)
        insert(element, [*words, self.equiv(line.text, line.confidence)], AFTER_TEXT)

    def tell(self, root: Element, page: Element) -> None:
        """Say how the texts were made, when, and in which language they are."""
        time, metadata = now(), child(root, "Metadata")
        if metadata is None:
            metadata = self.element("Metadata")
            metadata.extend((self.element("Creator", self.about.software), self.element("Created", time)))
            insert(root, [metadata], ("Page",))
        changed = child(metadata, "LastChange")
        if changed is None and child(metadata, "Created") is not None:  # which has to come before it
            changed = self.element("LastChange")
            insert(metadata, [changed], [n for n in map(local, metadata) if n not in ("Creator", "Created")])
        if changed is not None:
            changed.text = time
        if self.year >= 2019:
            step = self.element("MetadataItem", type="processingStep", name=STEP, value=self.about.software, date=time)
            if self.about.model:
                labels = self.element("Labels")
                labels.append(self.element("Label", type="model", value=self.about.model))
                step.append(labels)
            insert(metadata, [step])
        else:  # which has no element for it
            comments = child(metadata, "Comments")
            if comments is None:
                comments = self.element("Comments")
                insert(metadata, [comments], [n for n in map(local, metadata) if n not in COMMENTED])
            comments.text = "; ".join(filter(None, (comments.text, f"{STEP}: {self.about}")))
        name = NAMES.get(self.about.language.lower().partition("-")[0])
        places = [page] if self.year > 2013 else [e for e in page.iter() if local(e) == "TextRegion"]
        for place in places if name else ():
            place.attrib.setdefault("primaryLanguage", str(name))


COMMENTED = ("Creator", "Created", "LastChange")
