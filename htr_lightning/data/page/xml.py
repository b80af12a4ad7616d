"""Parse untrusted XML files, limiting their size and depth and rejecting entities, and query them by local name."""

import math
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from htr_lightning.data.page.page import Points
from htr_lightning.errors import InputError

MAX_BYTES = 10_000_000  # a page with an outline for every glyph has about three million bytes
MAX_MARKS = 1_000_000  # maximum number of tags and attributes, which determine the memory used by the tree
MAX_DEPTH = 100  # maximum nesting depth; real pages have a depth of about ten
MAX_COORDINATE = 10_000_000


def parse(path: Path) -> Element:
    """Parse an XML file and return its root element.

    Entities are rejected rather than expanded, because no page format needs them and they can be malicious.

    Raises:
        InputError: if the file is missing, not well-formed, too large or too deeply nested, or declares entities.
    """
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise InputError(f"{path}: too large ({size} bytes, maximum {MAX_BYTES}); export one file per page")
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: not found; check the path") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the file") from None
    if b"<!ENTITY" in content.replace(b"\0", b""):  # in UTF-16, every second byte of ASCII text is 0
        raise InputError(f"{path}: contains entity declarations, which are not allowed; export the page without them")
    if (marks := content.count(b"<") + content.count(b"=")) > MAX_MARKS:
        raise InputError(
            f"{path}: too many tags and attributes ({marks}, maximum {MAX_MARKS}); export one file per page"
        )
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{path}: not well-formed XML ({short(str(error))}); export the page again") from None
    level = [root]
    for _ in range(MAX_DEPTH):
        level = [element for parent in level for element in parent]
    if level:
        raise InputError(f"{path}: elements are nested more than {MAX_DEPTH} levels deep; export the page again")
    return root


def local(element: Element) -> str:
    """Return the name of an element without its namespace."""
    return element.tag.rpartition("}")[2]


def child(element: Element, *names: str) -> Element | None:
    """Return the first element at a path of local names, or None if there is no such element."""
    for name in names:
        found = next((e for e in element if local(e) == name), None)
        if found is None:
            return None
        element = found
    return element


def line_id(element: Element, key: str, number: int) -> str:
    """Return the id of a text line, with line breaks replaced by spaces, or `line{number}` if it has no id."""
    return " ".join(element.get(key, "").split()) or f"line{number}"


def points(text: str | None, path: Path, line: str) -> Points:
    """Parse coordinates in the form "x,y x,y" (PAGE) or "x y x y" (ALTO).

    Raises:
        InputError: if a coordinate is not a number or is out of range, or the number of coordinates is odd.
    """
    numbers = (text or "").replace(",", " ").split()
    try:
        values = [float(number) for number in numbers]
    except ValueError:
        raise InputError(f"{path}: line {line}: invalid coordinates '{short(text)}'; fix the line") from None
    if not all(abs(value) <= MAX_COORDINATE for value in values):  # NaN fails this comparison as well
        raise InputError(f"{path}: line {line}: coordinates '{short(text)}' are out of range; fix the line")
    if len(values) == 1:
        return []  # before ALTO 4.1, a baseline may be a single y coordinate
    if len(values) % 2:
        raise InputError(f"{path}: line {line}: odd number of coordinates '{short(text)}'; fix the line")
    return list(zip(values[::2], values[1::2], strict=True))


def integer(text: str | None, default: int) -> int:
    """Return the value of an attribute as an integer, or the default if it is not a number or is out of range."""
    try:
        value = float(text or default)
    except (ValueError, OverflowError):
        return default
    return int(value) if math.isfinite(value) and abs(value) <= MAX_COORDINATE else default


def one_line(text: str) -> str:
    """Replace line breaks, which some editors leave in the text of a line, with spaces."""
    parts = [part.strip() for part in text.replace("\r", "\n").split("\n")]
    return " ".join(part for part in parts if part) if len(parts) > 1 else text


def short(text: str | None) -> str:
    """Shorten text to a single line of at most 80 characters for use in a message."""
    text = " ".join((text or "")[:1000].split())
    return text if len(text) <= 80 else text[:77] + "..."
