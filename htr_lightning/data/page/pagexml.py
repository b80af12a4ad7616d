"""Read PAGE XML, versions 2010 to 2019 (https://github.com/PRImA-Research-Lab/PAGE-XML).

Lines may lack a polygon or a baseline; `baseline.outline` adds missing polygons.
"""

import re
from pathlib import Path
from xml.etree.ElementTree import Element

from htr_lightning.data.page.page import Line, Page, Points
from htr_lightning.data.page.xml import child, integer, line_id, local, number, one_line, points, text_lines
from htr_lightning.errors import InputError

ANGLES = ("orientation", "readingOrientation")
INHERITED = (*ANGLES, "readingDirection")  # attributes that regions inherit from the page and outer regions


def read(path: Path, root: Element) -> Page:
    """Read the page in a <PcGts> element, with its lines in reading order.

    Raises:
        InputError: if there is no page, or there are too many lines.
    """
    found = [line for _, line in lines(path, root)]
    page = child(root, "Page")
    assert page is not None  # or `lines` would have raised an error
    width, height = (max(0, integer(page.get(key), 0)) for key in ("imageWidth", "imageHeight"))
    regions = {e.get("id", ""): _points(e, "Coords")[0] for e in page.iter() if child(e, "TextLine") is not None}
    return Page(path, page.get("imageFilename", ""), width, height, found, {id: at for id, at in regions.items() if at})


def lines(path: Path, root: Element) -> list[tuple[Element, Line]]:
    """Return the lines in a <PcGts> element in reading order, each with its element; see `read`."""
    page = child(root, "Page")
    if page is None:
        raise InputError(f"{path}: no <Page> element; export the page again")
    reading = child(page, "ReadingOrder")
    order = {name: position for position, name in enumerate([] if reading is None else _regions_in_order(reading))}
    numbers = {e: count for count, e in enumerate(text_lines(page, path), start=1)}
    return _lines(page, order, numbers, {})


def text_of(element: Element) -> str:
    """Return the text of a line, word or glyph.

    Of several texts, this is the one with the lowest index that is not empty; a missing index counts as the lowest. If
    all are empty, it consists of the words, joined by spaces, or of the glyphs.
    """
    equivs = sorted((e for e in element if local(e) == "TextEquiv"), key=lambda e: integer(e.get("index"), -1))
    forms = [form for e in equivs for form in (child(e, "Unicode"), child(e, "PlainText")) if form is not None]
    texts = ["".join(form.itertext()) for form in forms]
    if text := next((text for text in texts if text.strip()), ""):
        return text
    words, glyphs = ([text_of(e).strip() for e in element if local(e) == kind] for kind in ("Word", "Glyph"))
    return " ".join(filter(None, words)) or "".join(glyphs) or "".join(texts[:1])


def _regions_in_order(group: Element) -> list[str]:
    """Return the region ids in a group of the reading order, sorted by index where the group is ordered."""
    names = []
    for element in sorted(group, key=lambda e: integer(e.get("index"), 0)):  # stable, so unordered groups are unchanged
        names += [element.get("regionRef", ""), *_regions_in_order(element)]
    return names


def _lines(
    region: Element, order: dict[str, int], numbers: dict[Element, int], inherited: dict[str, str]
) -> list[tuple[Element, Line]]:
    """Return the lines of a region, then those in its nested elements, each with its element.

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
            lines.append((int(position[1]) if position else None, (element, line)))
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
        one_line(text_of(element)),
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
