"""Read ALTO XML, versions 2 to 4 (https://github.com/altoxml/schema)."""

import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

from htr_lightning.data.page.page import Line, Page, Points
from htr_lightning.data.page.xml import child, integer, line_id, local, number, one_line, points, short, text_lines
from htr_lightning.errors import InputError

DIRECTIONS = {"ltr": "left-to-right", "rtl": "right-to-left", "ttb": "top-to-bottom", "btt": "bottom-to-top"}  # of PAGE
SOFT_HYPHEN = "\u00ad"


def read(path: Path, root: Element) -> Page:
    """Read the page in an <alto> element, with its lines in reading order if the file specifies one (ALTO 4.3).

    Raises:
        InputError: if there is not exactly one page, or the measurement unit is not pixels.
    """
    name = child(root, "Description", "sourceImageInformation", "fileName")
    found = [line for _, line in lines(path, root)]
    page = next(e for e in root.iter() if local(e) == "Page")
    width, height = (max(0, integer(page.get(key), 0)) for key in ("WIDTH", "HEIGHT"))
    blocks = {e.get("ID", ""): _polygon(e)[0] for e in page.iter() if child(e, "TextLine") is not None}
    regions = {id: outline for id, outline in blocks.items() if outline}
    return Page(path, "" if name is None else (name.text or "").strip(), width, height, found, regions)


def lines(path: Path, root: Element) -> list[tuple[Element, Line]]:
    """Return the lines in an <alto> element in reading order, each with its element; see `read`."""
    unit = child(root, "Description", "MeasurementUnit")
    if unit is not None and (unit.text or "pixel").strip() != "pixel":
        raise InputError(f"{path}: unsupported unit '{short(unit.text)}'; export the page with pixel coordinates")
    pages = [e for e in root.iter() if local(e) == "Page"]
    if len(pages) != 1:
        raise InputError(f"{path}: expected 1 <Page> element, got {len(pages)}; split the file into one file per page")
    text_lines(pages[0], path)  # raises InputError if there are too many
    groups = [e for e in root.iter() if local(e) in ("OrderedGroup", "UnorderedGroup", "ElementRef")]
    references = [reference for group in groups for reference in group.get("REF", "").split()]
    order = {reference: position for position, reference in enumerate(references)}
    found = list(_lines(pages[0], _Setting(len(order), "", 0.0, ""), order))
    found.sort(key=lambda pair: pair[0].position)  # stable, so unlisted elements stay in file order
    return [(element, _line(element, count, setting)) for count, (setting, element) in enumerate(found, start=1)]


class _Setting(NamedTuple):
    """What a line inherits from the elements that contain it; the innermost value applies."""

    position: int  # position in the reading order
    block: str  # id of the innermost element
    rotation: float  # counter-clockwise rotation of the text in degrees, and thus the clockwise rotation that undoes it
    direction: str  # base direction


def _lines(element: Element, outer: _Setting, order: dict[str, int]) -> Iterator[tuple[_Setting, Element]]:
    """Yield the lines in an element, each with its setting.

    Args:
        element: the page, or any element in it.
        outer: setting of the element that contains the element.
        order: positions in the reading order by id; both lines and blocks may be listed.
    """
    name, direction = element.get("ID", ""), element.get("BASEDIRECTION", "")
    setting = _Setting(
        order.get(name, outer.position),
        outer.block if local(element) == "TextLine" else name,
        number(element.get("ROTATION"), outer.rotation),
        DIRECTIONS.get(direction, outer.direction),
    )
    if local(element) == "TextLine":
        yield setting, element
    else:
        for inner in element:
            yield from _lines(inner, setting, order)


def _line(element: Element, count: int, setting: _Setting) -> Line:
    polygon, bad_polygon = _polygon(element)
    baseline, bad_baseline = points(element.get("BASELINE"))
    return Line(
        line_id(element, "ID", count),
        _text(element),
        polygon,
        baseline,
        setting.block,
        orientation=setting.rotation,
        direction=setting.direction,
        bad_polygon=bad_polygon,
        bad_baseline=bad_baseline,
    )


def _polygon(line: Element) -> tuple[Points, str]:
    """Return the polygon of a line, or the corners of its box if it has no usable polygon."""
    shape = child(line, "Shape", "Polygon")
    polygon, bad = ([], "") if shape is None else points(shape.get("POINTS"))
    sides = [line.get(key, "") for key in ("HPOS", "VPOS", "WIDTH", "HEIGHT")]
    if len(polygon) > 2 or not all(sides):
        return polygon, bad
    if shape is not None and polygon:
        bad = f"'{short(shape.get('POINTS'))}': fewer than 3 points"
    box, bad_box = points(" ".join(sides))
    if len(box) != 2:
        return polygon, bad or bad_box or f"'{short(' '.join(sides))}': not four numbers"
    (left, top), (width, height) = box
    return [(left, top), (left + width, top), (left + width, top + height), (left, top + height)], bad


def _text(line: Element) -> str:
    """Join the strings, spaces and hyphen of a line, ignoring SUBS_CONTENT, which repeats a divided word in full."""
    parts = [(local(e), _content(e)) for e in line if local(e) in ("String", "SP", "HYP")]
    parts = [(kind, content) for kind, content in parts if content or kind != "String"]
    strings = [position for position, (kind, _) in enumerate(parts) if kind == "String"]
    inner = parts[strings[0] : strings[-1]] if strings else []
    spaced = any(kind == "SP" for kind, _ in inner)  # some programs do not write the spaces between words
    pieces, space = [""], False
    for kind, content in parts:
        match kind:
            case "SP":
                space = True
            case "HYP":
                pieces[-1] = _hyphenated(pieces[-1], content.strip())
            case _:
                pieces += [" " if pieces[-1] and (space or not spaced) else "", content]
                space = False
    return one_line("".join(pieces))


def _content(part: Element) -> str:
    """Return the content of a string or hyphen, or of the glyphs of a string without content."""
    return part.get("CONTENT") or "".join(e.get("CONTENT", "") for e in part if local(e) == "Glyph")


def _hyphenated(text: str, hyphen: str) -> str:
    """Add a hyphen to a text that does not end with one; a soft hyphen in the file is a visible hyphen on the page."""
    text = text.removesuffix(SOFT_HYPHEN)
    hyphen = hyphen.replace(SOFT_HYPHEN, "-") or "-"
    has_hyphen = text.endswith((hyphen, "=", "¬")) or unicodedata.category(text[-1:] or " ") == "Pd"
    return text if has_hyphen else text + hyphen
