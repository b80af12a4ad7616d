"""Write searchable PDF files: the image of a page with its text over it, invisible, for searching and copying.

Text is drawn with a font of empty glyphs, as in the PDF files of Tesseract and OCRmyPDF, so that characters of any
script take a few bytes instead of a font: what a character is follows from the font's ToUnicode map.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from PIL import Image, ImageOps

from htr_lightning.data.grey import grey
from htr_lightning.data.image import ORIENTATION, decoded
from htr_lightning.data.page.baseline import line_distance, reading_angle
from htr_lightning.data.page.page import Line, Page, Points
from htr_lightning.data.page.write_page import region_box
from htr_lightning.data.page.written import About
from htr_lightning.text.direction import visual

DPI = 300.0  # of an image that does not state any
RESOLUTIONS = (100, 2400)  # bounds for what an image states; 72 and 96 are what cameras and editors put for none
MAX_SIDE = 14_400  # points; larger pages are scaled down, as viewers require
QUALITY = 90  # of pictures that are not JPEG files already
COLOURED = ("RGB", "P", "CMYK")  # modes that are shown in colour, unless they are transparent
ASCENT, DESCENT = 800, -200  # of the font, in thousandths of its size
SIZE = 0.5  # of the font, as a fraction of the height of the line, since the outlines of lines overlap
# Readers of PDF files split words that slope, and lines whose words differ in height by more than a tenth of the font
SPACE = 0.25  # width of a space between words, in sizes of the font
WIDE = 12  # width in such spaces of a gap that is kept
LEVEL = 15  # slope in degrees up to which words are level
MAX_DROP = 0.1  # of the words of such a line, in sizes of the font


def new_page(page: Page, image: Path, about: About) -> bytes:
    """Return a page as a PDF file.

    A JPEG file is embedded as it is.

    Args:
        page: page with its lines in reading order.
        image: image of the page.
        about: what is said about the texts.

    Raises:
        InputError: if the image cannot be read.
    """
    size, picture = _picture(image, (page.width, page.height))
    scale = min(72 / size[2], MAX_SIDE / max(size[:2]))
    width, height = size[0] * scale, size[1] * scale
    codes: dict[str, int] = {}
    distance = line_distance(page.lines)
    page = page._replace(width=size[0], height=size[1])  # which its file need not state
    lines = [line._replace(polygon=line.polygon or region_box(page, line.region)) for line in page.lines if line.text]
    text = b"\n".join(_text(line, distance, scale, height, codes) for line in lines)
    content = f"q {width:.3f} 0 0 {height:.3f} 0 0 cm /Page Do Q\n".encode() + b"BT 3 Tr\n" + text + b"\nET"
    font = _font()
    language = f"/Lang {_string(about.language)} " if about.language else ""
    objects = [
        f"<< /Type /Catalog /Pages 2 0 R {language}/MarkInfo << /Marked false >> >>".encode(),
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {width:.3f} {height:.3f}] /Contents 4 0 R /Resources << "
        "/XObject << /Page 5 0 R >> /Font << /Text 6 0 R >> >> >>".encode(),
        _stream(content),
        picture,
        b"<< /Type /Font /Subtype /Type0 /BaseFont /Invisible /Encoding /Identity-H /DescendantFonts [7 0 R] "
        b"/ToUnicode 8 0 R >>",
        b"<< /Type /Font /Subtype /CIDFontType2 /BaseFont /Invisible /CIDSystemInfo << /Registry (Adobe) "
        b"/Ordering (Identity) /Supplement 0 >> /FontDescriptor 9 0 R /DW 1000 /CIDToGIDMap 10 0 R >>",
        _stream(_to_unicode(codes)),
        f"<< /Type /FontDescriptor /FontName /Invisible /Flags 4 /FontBBox [0 {DESCENT} 1000 {ASCENT}] /ItalicAngle 0 "
        f"/Ascent {ASCENT} /Descent {DESCENT} /CapHeight {ASCENT} /StemV 80 /FontFile2 11 0 R >>".encode(),
        _stream(b"\0\1" * (len(codes) + 1)),
        _stream(font, f"/Length1 {len(font)} "),
        f"<< /Title {_string(page.image or image.name)} /Producer {_string(str(about))} >>".encode(),
    ]
    return _file(objects)


def _file(objects: list[bytes]) -> bytes:
    """Return a PDF file whose first object is the catalog and whose last one holds the metadata."""
    parts, offsets, position = [b"%PDF-1.5\n%\xe2\xe3\xcf\xd3\n"], [], 0
    for number, content in enumerate(objects, start=1):
        position += len(parts[-1])
        offsets.append(position)
        parts.append(b"%d 0 obj\n" % number + content + b"\nendobj\n")
    start = position + len(parts[-1])
    rows = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    count = len(objects) + 1
    parts.append(b"xref\n0 %d\n0000000000 65535 f \n" % count + rows)
    parts.append(b"trailer\n<< /Size %d /Root 1 0 R /Info %d 0 R >>\n" % (count, count - 1))
    parts.append(b"startxref\n%d\n%%%%EOF\n" % start)
    return b"".join(parts)


def _stream(content: bytes, entries: str = "") -> bytes:
    packed = zlib.compress(content)
    return f"<< {entries}/Filter /FlateDecode /Length {len(packed)} >>\nstream\n".encode() + packed + b"\nendstream"


def _string(text: str) -> str:
    return _hex(f"\ufeff{text}")


def _hex(text: str) -> str:
    return f"<{text.encode('utf-16-be', 'replace').hex().upper()}>"


def _picture(path: Path, page: tuple[int, int]) -> tuple[tuple[int, int, float], bytes]:
    """Return the width, height and dots per inch of an image, and the image as a PDF object.

    Args:
        path: path to the image.
        page: width and height of the page; if only the image without its EXIF rotation has this size, it is not
            rotated, as in `read_image`.
    """
    with decoded(path) as stored:
        stated = stored.info.get("dpi", (DPI, DPI))[0]
        dpi = float(stated) if RESOLUTIONS[0] <= stated <= RESOLUTIONS[1] else DPI
        image = ImageOps.exif_transpose(stored)
        if image.size != page and stored.size == page:
            image = stored
        is_upright = image is stored or stored.getexif().get(ORIENTATION, 1) == 1
        if stored.format == "JPEG" and stored.mode in ("L", "RGB") and is_upright:
            content, colours = path.read_bytes(), {"L": "Gray", "RGB": "RGB"}[stored.mode]
        else:
            if image.mode in COLOURED and "transparency" not in image.info:
                image = image.convert("RGB")
            else:  # what the recognizer saw: Pillow would clip 16 bits and make transparent pixels black
                image = Image.fromarray(grey(image))
            file = BytesIO()
            image.save(file, "JPEG", quality=QUALITY)
            content, colours = file.getvalue(), "Gray" if image.mode == "L" else "RGB"
        width, height = image.size
    head = (
        f"<< /Type /XObject /Subtype /Image /Width {width} /Height {height} /ColorSpace /Device{colours} "
        f"/BitsPerComponent 8 /Filter /DCTDecode /Length {len(content)} >>\nstream\n"
    )
    return (width, height, dpi), head.encode() + content + b"\nendstream"


def _text(line: Line, distance: float, scale: float, height: float, codes: dict[str, int]) -> bytes:
    """Return the operators that write a line.

    Args:
        line: the line.
        distance: distance between lines in pixels; 0 if it is not known.
        scale: points per pixel.
        height: height of the page in points.
        codes: codes of the characters in the font, to which those of the line are added.
    """
    angle = reading_angle(line)
    level = abs(angle - 90 * round(angle / 90)) <= LEVEL
    if level:
        angle = 90.0 * round(angle / 90)
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    turn = np.array([[cos, -sin], [sin, cos]])  # of points in rows, so that the line runs to the right
    down = np.array(line.polygon) @ turn[:, 1]
    size = max(1.0, SIZE * min(float(np.ptp(down)), distance or math.inf))
    base = np.array(line.baseline or [(0, 0)], np.float64) @ turn
    if len(base) < 2:
        base = np.array([(0, down.max() + size * DESCENT / 1000)])
    base = base[base[:, 0].argsort()]
    pieces = list(_pieces(line, turn, SPACE * size))
    heights = np.interp([(start + end) / 2 for _, start, end in pieces], *base.T)
    if level:
        middle, drop = heights.mean(), np.ptp(heights)
        heights = middle + (heights - middle) * min(1, MAX_DROP * size / max(drop, 1))
    operators = []
    for (text, start, end), at in zip(pieces, heights.tolist(), strict=True):
        x, y = turn @ (start, at)
        shown = visual(text)
        stretch = max(0.1, 100 * (end - start) / size / len(shown))
        hexes = "".join(f"{codes.setdefault(character, len(codes) + 1):04X}" for character in shown)
        matrix = " ".join(f"{one:.4f}" for one in (cos, -sin, sin, cos, x * scale, height - y * scale))
        operators.append(f"/Text {size * scale:.2f} Tf {stretch:.2f} Tz {matrix} Tm <{hexes}> Tj")
    return "\n".join(operators).encode()


def _pieces(line: Line, turn: Float64[ndarray, "2 2"], space: float) -> Iterator[tuple[str, float, float]]:
    """Yield the words and the spaces of a line with their extent along it, or the whole line if it has no words.

    Words extend to where the next space begins: readers of PDF files join words without one, and take wide ones for the
    gap between columns.
    """
    if not line.words:
        yield line.text, *_extent(line.polygon, turn)
        return
    extents = [_extent(word.polygon, turn) for word in line.words]
    order = sorted(range(len(extents)), key=extents.__getitem__)
    for this, after in pairwise(order):
        start, end = extents[this]
        limit = extents[after][0] - space
        extents[this] = start, max(start + 1, limit if limit - end < WIDE * space else end)
    for number, (word, (start, end)) in enumerate(zip(line.words, extents, strict=True)):
        if number:
            left, right = sorted((extents[number - 1], (start, end)))
            yield " ", left[1], max(right[0], left[1] + 1)
        yield word.text, start, end


def _extent(outline: Points, turn: Float64[ndarray, "2 2"]) -> tuple[float, float]:
    """Return where the middle of an outline begins and ends along its line; letters may lean over their neighbours."""
    points = np.array(outline, np.float64) @ turn
    middle = (points[:, 1].min() + points[:, 1].max()) / 2
    following = np.roll(points, -1, axis=0)
    crosses = (points[:, 1] < middle) != (following[:, 1] < middle)
    (x0, y0), (x1, y1) = points[crosses].T, following[crosses].T
    found = x0 + (middle - y0) / np.where(y1 == y0, 1, y1 - y0) * (x1 - x0) if crosses.any() else points[:, 0]
    return float(found.min()), float(max(found.max(), found.min() + 1))


def _to_unicode(codes: dict[str, int]) -> bytes:
    rows = [
        f"<{code:04X}> <{character.encode('utf-16-be', 'replace').hex().upper()}>" for character, code in codes.items()
    ]
    blocks = [rows[start : start + 100] for start in range(0, len(rows), 100)]
    maps = "\n".join(f"{len(block)} beginbfchar\n" + "\n".join(block) + "\nendbfchar" for block in blocks)
    return (
        "/CIDInit /ProcSet findresource begin\n12 dict begin\nbegincmap\n/CIDSystemInfo << /Registry (Adobe) /Ordering "
        "(UCS) /Supplement 0 >> def\n/CMapName /Adobe-Identity-UCS def\n/CMapType 2 def\n1 begincodespacerange\n<0000> "
        f"<FFFF>\nendcodespacerange\n{maps}\nendcmap\nCMapName currentdict /CMap defineresource pop\nend\nend\n"
    ).encode()


def _font() -> bytes:
    """Return a TrueType font with two empty glyphs, which are as wide as high."""
    bounds = (0, DESCENT, 1000, ASCENT)
    tables = {
        b"glyf": bytes(4),
        b"head": struct.pack(
            ">IIIIHHqqhhhhHHhhh", 0x10000, 0x10000, 0, 0x5F0F3CF5, 0, 1000, 0, 0, *bounds, 0, 8, 2, 0, 0
        ),
        b"hhea": struct.pack(">IhhhHhhhhhh8xhH", 0x10000, ASCENT, DESCENT, 0, 1000, 0, 0, 1000, 1, 0, 0, 0, 2),
        b"hmtx": struct.pack(">HhHh", 1000, 0, 1000, 0),
        b"loca": struct.pack(">HHH", 0, 0, 0),
        b"maxp": struct.pack(">IH13H", 0x10000, 2, *[0] * 3, *[0] * 10),
    }
    directory, data, offset = b"", b"", 12 + 16 * len(tables)
    for name, table in tables.items():
        padded = table + bytes(-len(table) % 4)
        total = sum(struct.unpack(f">{len(padded) // 4}I", padded)) % (1 << 32)
        directory += struct.pack(">4sIII", name, total, offset + len(data), len(table))
        data += padded
    return struct.pack(">IHHHH", 0x10000, len(tables), 64, 2, 16 * len(tables) - 64) + directory + data
