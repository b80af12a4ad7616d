"""Read ALTO XML, versions 2 to 4 (https://github.com/altoxml/schema)."""

from pathlib import Path
from xml.etree.ElementTree import Element

from htr_lightning.data.page.page import Line, Page
from htr_lightning.data.page.xml import child, integer, line_id, local, one_line, points, short
from htr_lightning.errors import InputError


def read(path: Path, root: Element) -> Page:
    """Read the page in an <alto> element, with its blocks in reading order if the file specifies one (ALTO 4.3).

    Raises:
        InputError: if there is not exactly one page, the measurement unit is not pixels, or coordinates are invalid.
    """
    unit = child(root, "Description", "MeasurementUnit")
    if unit is not None and (unit.text or "pixel").strip() != "pixel":
        raise InputError(f"{path}: unsupported unit '{short(unit.text)}'; export the page with pixel coordinates")
    pages = [e for e in root.iter() if local(e) == "Page"]
    if len(pages) != 1:
        raise InputError(f"{path}: expected 1 <Page> element, got {len(pages)}; split the file into one file per page")
    name = child(root, "Description", "sourceImageInformation", "fileName")
    references = (e.get("REF", "") for e in root.iter() if local(e) == "ElementRef")
    order = {name: position for position, name in enumerate(references)}
    blocks = [e for e in pages[0].iter() if local(e) == "TextBlock"]
    blocks.sort(key=lambda e: order.get(e.get("ID", ""), len(order)))  # stable, so unlisted blocks stay in file order
    elements = [(block.get("ID", ""), e) for block in blocks for e in block if local(e) == "TextLine"]
    lines = [_line(path, e, number, block) for number, (block, e) in enumerate(elements, start=1)]
    width, height = (max(0, integer(pages[0].get(key), 0)) for key in ("WIDTH", "HEIGHT"))
    return Page(path, "" if name is None else (name.text or "").strip(), width, height, lines)


def _line(path: Path, element: Element, number: int, block: str) -> Line:
    name = line_id(element, "ID", number)
    shape = child(element, "Shape", "Polygon")
    polygon = [] if shape is None else points(shape.get("POINTS"), path, name)
    if not polygon:
        box = " ".join(element.get(key, "") for key in ("HPOS", "VPOS", "WIDTH", "HEIGHT"))
        polygon = points(box, path, name) if len(box.split()) == 4 else []
        if len(polygon) == 2:
            (left, top), (width, height) = polygon
            polygon = [(left, top), (left + width, top), (left + width, top + height), (left, top + height)]
    return Line(name, _text(element), polygon, points(element.get("BASELINE"), path, name), block)


def _text(line: Element) -> str:
    """Join the strings, spaces and hyphen of a line, ignoring SUBS_CONTENT, which repeats a divided word in full."""
    parts = [e for e in line if local(e) in ("String", "SP", "HYP")]
    spaced = any(local(e) == "SP" for e in parts)
    glue = "" if spaced else " "  # some programs do not write the spaces between words
    text = ""
    for e in parts:
        match local(e):
            case "SP":
                text += " "
            case "HYP":  # a soft hyphen in the file is a visible hyphen on the page
                text += e.get("CONTENT", "-").replace("\u00ad", "-")
            case _:
                text += glue + e.get("CONTENT", "")
    return one_line(text.removeprefix(glue))
