"""Write hOCR (http://kba.github.io/hocr-spec/1.2), which many programs for digitised documents read."""

from xml.etree.ElementTree import Element, SubElement, indent

from htr_lightning.data.page.page import Line, Page, Points, baseline_angle, bounding_box
from htr_lightning.data.page.write_page import region_box
from htr_lightning.data.page.written import About, Ids
from htr_lightning.data.page.xml import write

DIRECTIONS = {"left-to-right": "ltr", "right-to-left": "rtl"}
DOCTYPE = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN" '
    b'"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">\n'
)


def new_page(page: Page, about: About) -> bytes:
    """Return a page as an XHTML file with hOCR properties."""
    language = {"lang": about.language, "xml:lang": about.language} if about.language else {}
    root = Element("html", {"xmlns": "http://www.w3.org/1999/xhtml"} | language)
    head, body, ids = SubElement(root, "head"), SubElement(root, "body"), Ids()
    name = page.image or f"{page.path.stem}.jpg"
    SubElement(head, "title").text = name
    SubElement(head, "meta", {"http-equiv": "Content-Type", "content": "text/html;charset=utf-8"})
    SubElement(head, "meta", name="ocr-system", content=f"{about.software}{about.model and f' {about.model}'}")
    capabilities = "ocr_page ocr_carea ocr_line ocrx_word ocrp_wconf"
    SubElement(head, "meta", name="ocr-capabilities", content=capabilities)
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    title = f'image "{quoted}"; bbox 0 0 {page.width} {page.height}; ppageno 0'
    sheet = SubElement(body, "div", {"class": "ocr_page", "id": ids.new("page"), "title": title})
    last: tuple[str, Element] | None = None
    for line in page.lines:
        if last is None or last[0] != line.region:
            outline = page.regions.get(line.region) or region_box(page, line.region)
            area = {"class": "ocr_carea", "id": ids.new(line.region or "block"), "title": _box(outline)}
            last = line.region, SubElement(sheet, "div", area)
        title = _line_title(line, line.polygon or region_box(page, line.region))
        element = SubElement(last[1], "span", {"class": "ocr_line", "id": ids.new(line.id), "title": title})
        if line.direction in DIRECTIONS:
            element.set("dir", DIRECTIONS[line.direction])
        if not line.words:
            element.text = line.text
        for number, word in enumerate(line.words, start=1):
            title = f"{_box(word.polygon)}; x_wconf {round(100 * word.confidence)}"
            if about.glyphs:
                title += "; x_confs " + " ".join(f"{100 * glyph.confidence:g}" for glyph in word.glyphs)
            attributes = {"class": "ocrx_word", "id": ids.new(f"{line.id}_w{number}"), "title": title}
            SubElement(element, "span", attributes).text = word.text
    indent(root)
    for line_element in (e for e in root.iter("span") if e.get("class") == "ocr_line"):
        for word_element in line_element[:-1]:
            word_element.tail = " "  # so that a browser shows a line of words
        if len(line_element):
            line_element.text = line_element[-1].tail = None
    return DOCTYPE + write(root) + b"\n"


def _box(points: Points) -> str:
    return "bbox " + " ".join(str(max(0, round(side))) for side in bounding_box(points))


def _line_title(line: Line, outline: Points) -> str:
    """Return the properties of a line; its baseline is given from the bottom left corner of its box."""
    title, angle = _box(outline), baseline_angle(line.baseline)
    if len(line.baseline) > 1 and abs(angle) < 45:
        (x0, y0), (x1, y1) = line.baseline[0], line.baseline[-1]
        left, _, _, bottom = bounding_box(outline)
        slope = (y1 - y0) / (x1 - x0)
        title += f"; baseline {slope:.4f} {round(y0 + slope * (left - x0) - bottom)}"
    elif len(line.baseline) > 1:
        title += f"; textangle {-angle % 360:.1f}"
    return title
