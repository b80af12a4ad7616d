"""PAGE and ALTO files as plain data: a page and its text lines in reading order."""

import math
import re
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from htr_lightning.data.image import SUFFIXES
from htr_lightning.errors import InputError

Points = list[tuple[float, float]]


class Line(NamedTuple):
    """A text line as its file describes it. Coordinates in pixels, x right and y down."""

    id: str
    text: str  # "" where the file has none
    polygon: Points  # a box as its four corners; [] where the file has neither
    baseline: Points  # [] where the file has none
    region: str  # id of the region or block


class Page(NamedTuple):
    """A page as its file describes it."""

    path: Path
    image: str  # file name as written, "" where there is none
    width: int  # 0 where the file does not say
    height: int
    lines: list[Line]


def read_page(path: Path) -> Page:
    """Parse a PAGE (2010-2019) or ALTO (2-4) file, with or without its namespace.

    Raises:
        InputError: the file is missing, not XML, or neither PAGE nor ALTO.
    """
    root = parse(path)
    match local(root):
        case "PcGts":
            return _read_page(path, root)
        case "alto":
            return _read_alto(path, root)
        case name:
            raise InputError(f"{path}: neither PAGE nor ALTO, its root is <{name}>; export the page as one of the two")


def find_image(page: Page, folder: Path | None = None) -> Path:
    """The image of a page: by the name that its file gives, else by the file's own stem, in `folder` or beside it.

    Raises:
        InputError: there is none; the message names what was looked for.
    """
    folders = [folder] if folder else [page.path.parent]
    named = re.split(r"[\\/]", page.image)[-1]
    for place in folders:
        if named and (place / named).is_file():
            return place / named
        for suffix in SUFFIXES:
            for candidate in (place / f"{page.path.stem}{suffix}", place / f"{page.path.stem}{suffix.upper()}"):
                if candidate.is_file():
                    return candidate
    wanted = f"'{named}' nor '{page.path.stem}.*'" if named else f"'{page.path.stem}.*'"
    raise InputError(f"{page.path}: no image {wanted} in {folders[0]}; put it there under one of these names")


def baseline_angle(baseline: Points) -> float:
    """Degrees by which a baseline runs downhill, from its first to its last point; 0 for fewer than two points."""
    if len(baseline) < 2:
        return 0.0
    (x0, y0), (x1, y1) = baseline[0], baseline[-1]
    return math.degrees(math.atan2(y1 - y0, x1 - x0))


def parse(path: Path) -> ElementTree.Element:
    """The root element of an XML file.

    Raises:
        InputError: the file is missing or not well-formed.
    """
    try:
        return ElementTree.parse(path).getroot()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{path}: not well-formed XML ({error}); export the page again") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def local(element: ElementTree.Element) -> str:
    """An element's name without its namespace."""
    return element.tag.rpartition("}")[2]


def child(element: ElementTree.Element, *names: str) -> ElementTree.Element | None:
    """The first element down a path of local names, None where a step is missing."""
    for name in names:
        found = next((e for e in element if local(e) == name), None)
        if found is None:
            return None
        element = found
    return element


def points(text: str | None, path: Path, line: str) -> Points:
    """Coordinates written as "x,y x,y" (PAGE) or "x y x y" (ALTO); [] for none.

    Raises:
        InputError: a coordinate is no number, or there is an odd count of them.
    """
    numbers = (text or "").replace(",", " ").split()
    try:
        values = [float(number) for number in numbers]
    except ValueError:
        raise InputError(f"{path}: line {line}: points '{_short(text)}' are not numbers; mend the line") from None
    if not all(math.isfinite(value) for value in values):
        raise InputError(f"{path}: line {line}: points '{_short(text)}' are not finite; mend the line")
    if len(values) == 1:
        return []  # ALTO before 4.1: a baseline is one number, its height
    if len(values) % 2:
        raise InputError(f"{path}: line {line}: odd count of coordinates '{_short(text)}'; mend the line")
    return list(zip(values[::2], values[1::2], strict=True))


def text_equiv(element: ElementTree.Element) -> ElementTree.Element | None:
    """The element's own PAGE TextEquiv of lowest index (one without an index counts as the lowest)."""
    own = [e for e in element if local(e) == "TextEquiv"]
    return min(own, key=lambda e: _integer(e.get("index"), -1), default=None)


def _read_page(path: Path, root: ElementTree.Element) -> Page:
    page = child(root, "Page")
    if page is None:
        raise InputError(f"{path}: PAGE without a <Page>; export the page again")
    reading = child(page, "ReadingOrder")
    order = {name: place for place, name in enumerate([] if reading is None else _regions_in_order(reading))}
    numbers = {e: number for number, e in enumerate((e for e in page.iter() if local(e) == "TextLine"), start=1)}
    lines = _page_lines(path, page, order, numbers)
    size = _integer(page.get("imageWidth"), 0), _integer(page.get("imageHeight"), 0)
    return Page(path, page.get("imageFilename", ""), *size, lines)


def _regions_in_order(group: ElementTree.Element) -> list[str]:
    """Region ids in the order of a group of the ReadingOrder, by index where it has one."""
    names = []
    for element in sorted(
        group, key=lambda e: _integer(e.get("index"), 0)
    ):  # stable: unordered groups stay as they are
        names += [element.get("regionRef", ""), *_regions_in_order(element)]
    return names


def _page_lines(
    path: Path, region: ElementTree.Element, order: dict[str, int], numbers: dict[ElementTree.Element, int]
) -> list[Line]:
    """The lines of a region, then those of the regions in it; `numbers` names lines without an id."""
    lines, nested = [], []
    for element in region:
        if local(element).endswith("Region"):
            nested.append(element)
        elif local(element) == "TextLine":
            name = element.get("id") or f"line{numbers[element]}"
            coordinates, baseline = child(element, "Coords"), child(element, "Baseline")
            equiv = text_equiv(element)
            unicode = None if equiv is None else child(equiv, "Unicode")
            text = "" if unicode is None else "".join(unicode.itertext())
            position = re.search(r"readingOrder\s*\{[^}]*index:\s*(\d+)", element.get("custom", ""))
            line = Line(
                name,
                text,
                [] if coordinates is None else _page_points(coordinates, path, name),
                [] if baseline is None else _page_points(baseline, path, name),
                region.get("id", ""),
            )
            lines.append((int(position[1]) if position else None, line))
    if all(position is not None for position, _ in lines):
        lines.sort(key=lambda pair: pair[0] or 0)
    nested.sort(key=lambda e: order.get(e.get("id", ""), len(order)))  # stable: unlisted ones stay in file order
    return [line for _, line in lines] + [line for e in nested for line in _page_lines(path, e, order, numbers)]


def _page_points(element: ElementTree.Element, path: Path, line: str) -> Points:
    if "points" in element.attrib:
        return points(element.get("points"), path, line)
    corners = [e for e in element if local(e) == "Point"]  # PAGE 2010
    return points(" ".join(f"{e.get('x')},{e.get('y')}" for e in corners), path, line)


def _read_alto(path: Path, root: ElementTree.Element) -> Page:
    unit = child(root, "Description", "MeasurementUnit")
    if unit is not None and (unit.text or "pixel").strip() != "pixel":
        raise InputError(f"{path}: coordinates in {(unit.text or '').strip()}; export the page with pixel coordinates")
    pages = [e for e in root.iter() if local(e) == "Page"]
    if len(pages) != 1:
        raise InputError(f"{path}: ALTO with {len(pages)} <Page> elements; split it into one file a page")
    name = child(root, "Description", "sourceImageInformation", "fileName")
    blocks = [e for e in pages[0].iter() if local(e) == "TextBlock"]
    elements = [(block.get("ID", ""), e) for block in blocks for e in block if local(e) == "TextLine"]
    lines = [_alto_line(path, e, number, block) for number, (block, e) in enumerate(elements, start=1)]
    size = _integer(pages[0].get("WIDTH"), 0), _integer(pages[0].get("HEIGHT"), 0)
    return Page(path, "" if name is None else (name.text or "").strip(), *size, lines)


def _alto_line(path: Path, element: ElementTree.Element, number: int, block: str) -> Line:
    name = element.get("ID") or f"line{number}"
    shape = child(element, "Shape", "Polygon")
    polygon = [] if shape is None else points(shape.get("POINTS"), path, name)
    if not polygon:
        box = " ".join(element.get(key, "") for key in ("HPOS", "VPOS", "WIDTH", "HEIGHT"))
        polygon = [(x, y) for x, y in points(box, path, name)] if len(box.split()) == 4 else []
        if polygon:
            (left, top), (width, height) = polygon
            polygon = [(left, top), (left + width, top), (left + width, top + height), (left, top + height)]
    parts = [e for e in element if local(e) in ("String", "SP", "HYP")]
    spaced = any(local(e) == "SP" for e in parts)  # some writers leave the spaces between words unsaid
    glue = "" if spaced else " "
    words = [" " if local(e) == "SP" else glue * (local(e) == "String") + e.get("CONTENT", "") for e in parts]
    text = "".join(words).removeprefix(glue)
    return Line(name, text, polygon, points(element.get("BASELINE"), path, name), block)


def _integer(text: str | None, default: int) -> int:
    try:
        return int(float(text or default))
    except (ValueError, OverflowError):
        return default


def _short(text: str | None) -> str:
    text = " ".join((text or "").split())
    return text if len(text) <= 40 else text[:37] + "..."
