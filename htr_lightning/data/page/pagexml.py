"""PAGE XML, 2010 to 2019 (https://github.com/PRImA-Research-Lab/PAGE-XML)."""

import re
from pathlib import Path
from xml.etree.ElementTree import Element

from htr_lightning.data.page.page import Line, Page, Points
from htr_lightning.data.page.xml import child, integer, line_id, local, one_line, points
from htr_lightning.errors import InputError


def read(path: Path, root: Element) -> Page:
    """The page of a <PcGts> element, its lines in reading order.

    Raises:
        InputError: there is no page in it, or a line's points are none.
    """
    page = child(root, "Page")
    if page is None:
        raise InputError(f"{path}: PAGE without a <Page>; export the page again")
    reading = child(page, "ReadingOrder")
    order = {name: place for place, name in enumerate([] if reading is None else _regions_in_order(reading))}
    numbers = {e: number for number, e in enumerate((e for e in page.iter() if local(e) == "TextLine"), start=1)}
    lines = _lines(path, page, order, numbers)
    width, height = (max(0, integer(page.get(key), 0)) for key in ("imageWidth", "imageHeight"))
    return Page(path, page.get("imageFilename", ""), width, height, lines)


def text_equiv(element: Element) -> Element | None:
    """The element's own TextEquiv of lowest index (one without an index counts as the lowest)."""
    own = [e for e in element if local(e) == "TextEquiv"]
    return min(own, key=lambda e: integer(e.get("index"), -1), default=None)


def _regions_in_order(group: Element) -> list[str]:
    """Region ids in the order of a group of the ReadingOrder, by index where it has one."""
    names = []
    for element in sorted(group, key=lambda e: integer(e.get("index"), 0)):  # stable: unordered groups stay as they are
        names += [element.get("regionRef", ""), *_regions_in_order(element)]
    return names


def _lines(path: Path, region: Element, order: dict[str, int], numbers: dict[Element, int]) -> list[Line]:
    """The lines of a region, then those of what it holds; `numbers` names lines without an id."""
    lines, nested = [], []
    for element in region:
        if local(element) == "TextLine":
            position = re.search(r"readingOrder\s*\{[^}]*index:\s*(\d{1,9})", element.get("custom", "")[:10_000])
            line = _line(path, element, numbers[element], region.get("id", ""))
            lines.append((int(position[1]) if position else None, line))
        elif len(element):
            nested.append(element)  # regions of any kind, cells of tables
    if all(position is not None for position, _ in lines):
        lines.sort(key=lambda pair: pair[0] or 0)
    nested.sort(key=lambda e: order.get(e.get("id", ""), len(order)))  # stable: unlisted ones stay in file order
    return [line for _, line in lines] + [line for e in nested for line in _lines(path, e, order, numbers)]


def _line(path: Path, element: Element, number: int, region: str) -> Line:
    name = line_id(element, "id", number)
    equiv = text_equiv(element)
    unicode = None if equiv is None else child(equiv, "Unicode")
    text = "" if unicode is None else one_line("".join(unicode.itertext()))
    return Line(name, text, _points(element, "Coords", path, name), _points(element, "Baseline", path, name), region)


def _points(element: Element, kind: str, path: Path, line: str) -> Points:
    outline = child(element, kind)
    if outline is None:
        return []
    if "points" in outline.attrib:
        return points(outline.get("points"), path, line)
    corners = [e for e in outline if local(e) == "Point"]  # PAGE 2010
    return points(" ".join(f"{e.get('x')},{e.get('y')}" for e in corners), path, line)
