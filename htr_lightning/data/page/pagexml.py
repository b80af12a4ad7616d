"""Read PAGE XML, versions 2010 to 2019, and write version 2019 (https://github.com/PRImA-Research-Lab/PAGE-XML).

Lines may lack a polygon or a baseline; `baseline.outline` adds missing polygons.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from htr_lightning.data.page.page import Line, Page, Points
from htr_lightning.data.page.xml import child, integer, line_id, local, number, one_line, parse, points, text_lines
from htr_lightning.errors import InputError
from htr_lightning.version import __version__

NAMESPACE = "http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15"
ANGLES = ("orientation", "readingOrientation")
INHERITED = (*ANGLES, "readingDirection")  # attributes that regions inherit from the page and outer regions
AFTER_TEXT = ("TextStyle", "UserDefined", "Labels")  # elements that the schema places after the text


def read(path: Path, root: Element) -> Page:
    """Read the page in a <PcGts> element, with its lines in reading order.

    Raises:
        InputError: if there is no page, or there are too many lines.
    """
    page = child(root, "Page")
    if page is None:
        raise InputError(f"{path}: no <Page> element; export the page again")
    reading = child(page, "ReadingOrder")
    order = {name: position for position, name in enumerate([] if reading is None else _regions_in_order(reading))}
    numbers = {e: count for count, e in enumerate(text_lines(page, path), start=1)}
    lines = _lines(page, order, numbers, {})
    width, height = (max(0, integer(page.get(key), 0)) for key in ("imageWidth", "imageHeight"))
    return Page(path, page.get("imageFilename", ""), width, height, lines)


def write(page: Page) -> bytes:
    """Return a page as a PAGE 2019 file, which common transcription editors can open."""
    ElementTree.register_namespace("", NAMESPACE)
    space = f"{{{NAMESPACE}}}"
    root = Element(f"{space}PcGts")
    metadata = SubElement(root, f"{space}Metadata")
    SubElement(metadata, f"{space}Creator").text = f"htr_lightning {__version__}"
    now = datetime.now(UTC).isoformat(timespec="seconds")
    for stamp in ("Created", "LastChange"):
        SubElement(metadata, f"{space}{stamp}").text = now
    image = page.image or f"{page.path.stem}.jpg"
    size = {"imageWidth": str(page.width), "imageHeight": str(page.height)}
    body = SubElement(root, f"{space}Page", {"imageFilename": image, **size})
    regions: dict[str, Element] = {}
    for count, line in enumerate(page.lines, start=1):
        region = regions.get(line.region)
        if region is None:
            region = SubElement(body, f"{space}TextRegion", id=line.region or f"region_{count}")
            if line.orientation:
                region.set("orientation", f"{line.orientation:g}")
            SubElement(region, f"{space}Coords", points=_written(_region_box(page, line.region)))
            regions[line.region] = region
        element = SubElement(region, f"{space}TextLine", id=line.id)
        if line.direction:
            element.set("readingDirection", line.direction)
        SubElement(element, f"{space}Coords", points=_written(line.polygon))
        if line.baseline:
            SubElement(element, f"{space}Baseline", points=_written(line.baseline))
        if line.text or line.confidence is not None:
            _add_text(element, space, line)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def replace_texts(path: Path, lines: Sequence[Line]) -> bytes:
    """Return a PAGE file with the texts of the given lines replaced.

    The words of these lines and the texts of all regions are removed, because they would repeat the old texts.
    Everything else is kept.

    Args:
        path: path to the original file.
        lines: lines with new texts, matched by id.
    """
    root = parse(path)
    prefix = root.tag.removesuffix("PcGts")
    new = {line.id: line for line in lines}
    elements = [e for e in root.iter() if local(e) == "TextLine"]
    for count, element in enumerate(elements, start=1):
        line = new.get(line_id(element, "id", count))
        if line is None:
            continue
        for old in [e for e in element if local(e) in ("Word", "TextEquiv")]:
            element.remove(old)
        _add_text(element, prefix, line)
    for region in [e for e in root.iter() if local(e) == "TextRegion"]:
        for old in [e for e in region if local(e) == "TextEquiv"]:
            region.remove(old)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def _text(element: Element) -> str:
    """Return the text of a line, word or glyph.

    Of several texts, this is the one with the lowest index that is not empty; a missing index counts as the lowest. If
    all are empty, it consists of the words, joined by spaces, or of the glyphs.
    """
    equivs = sorted((e for e in element if local(e) == "TextEquiv"), key=lambda e: integer(e.get("index"), -1))
    forms = [form for e in equivs for form in (child(e, "Unicode"), child(e, "PlainText")) if form is not None]
    texts = ["".join(form.itertext()) for form in forms]
    if text := next((text for text in texts if text.strip()), ""):
        return text
    words, glyphs = ([_text(e).strip() for e in element if local(e) == kind] for kind in ("Word", "Glyph"))
    return " ".join(filter(None, words)) or "".join(glyphs) or "".join(texts[:1])


def _regions_in_order(group: Element) -> list[str]:
    """Return the region ids in a group of the reading order, sorted by index where the group is ordered."""
    names = []
    for element in sorted(group, key=lambda e: integer(e.get("index"), 0)):  # stable, so unordered groups are unchanged
        names += [element.get("regionRef", ""), *_regions_in_order(element)]
    return names


def _lines(
    region: Element, order: dict[str, int], numbers: dict[Element, int], inherited: dict[str, str]
) -> list[Line]:
    """Return the lines of a region, then those in its nested elements.

    Args:
        region: the page, or any element in it.
        order: positions of the regions in the reading order, by id.
        numbers: numbers of the lines, which provide ids for lines without one.
        inherited: values of the attributes in `INHERITED`, from the elements that contain the region.
    """
    inherited = inherited | {name: region.attrib[name] for name in INHERITED if name in region.attrib}
    lines, nested = [], []
    for element in region:
        if local(element) == "TextLine":
            # only the first mention is examined, because a search from each would take quadratic time
            custom = element.get("custom", "").partition("readingOrder")[2]
            position = re.match(r"\s*\{[^}]*?index:\s*(\d{1,9})", custom)
            line = _line(element, numbers[element], region.get("id", ""), inherited)
            lines.append((int(position[1]) if position else None, line))
        elif len(element):
            nested.append(element)  # regions of any type, and table cells
    if all(position is not None for position, _ in lines):
        lines.sort(key=lambda pair: pair[0] or 0)
    nested.sort(key=lambda e: order.get(e.get("id", ""), len(order)))  # stable, so the others stay in file order
    return [line for _, line in lines] + [line for e in nested for line in _lines(e, order, numbers, inherited)]


def _line(element: Element, count: int, region: str, inherited: dict[str, str]) -> Line:
    polygon, bad_polygon = _points(element, "Coords")
    baseline, bad_baseline = _points(element, "Baseline")
    return Line(
        line_id(element, "id", count),
        one_line(_text(element)),
        polygon,
        baseline,
        region,
        # the angle of a line is relative to that of its region
        orientation=sum(map(number, [*map(inherited.get, ANGLES), element.get("orientation")])),
        direction=element.get("readingDirection") or inherited.get("readingDirection", ""),
        bad_polygon=bad_polygon,
        bad_baseline=bad_baseline,
    )


def _points(element: Element, kind: str) -> tuple[Points, str]:
    outline = child(element, kind)
    if outline is None:
        return [], ""
    if "points" in outline.attrib:
        return points(outline.get("points"))
    corners = [e for e in outline if local(e) == "Point"]  # PAGE 2010
    return points(" ".join(f"{e.get('x')},{e.get('y')}" for e in corners))


def _add_text(element: Element, prefix: str, line: Line) -> None:
    equiv = Element(f"{prefix}TextEquiv")
    if line.confidence is not None:
        equiv.set("conf", f"{line.confidence:.4f}")
    SubElement(equiv, f"{prefix}Unicode").text = line.text
    position = next((i for i, e in enumerate(element) if local(e) in AFTER_TEXT), len(element))
    element.insert(position, equiv)


def _region_box(page: Page, region: str) -> Points:
    """Return the bounding box of the lines in a region, or of the page if the lines have no polygons."""
    corners = [point for line in page.lines if line.region == region for point in line.polygon]
    xs, ys = zip(*(corners or [(0.0, 0.0), (float(page.width), float(page.height))]), strict=True)
    return [(min(xs), min(ys)), (max(xs), min(ys)), (max(xs), max(ys)), (min(xs), max(ys))]


def _written(corners: Points) -> str:
    return " ".join(f"{max(0, round(x))},{max(0, round(y))}" for x, y in corners)
