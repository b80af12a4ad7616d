"""XML files as untrusted input: limited in size and depth, without entities; elements are found by local name."""

import math
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from htr_lightning.data.page.page import Points
from htr_lightning.errors import InputError

MAX_BYTES = 10_000_000  # a page with every glyph outlined has about three million
MAX_MARKS = 1_000_000  # tags and attributes, which determine the size of the tree in memory
MAX_DEPTH = 100  # nested elements; real pages have about ten
MAX_COORDINATE = 10_000_000


def parse(path: Path) -> Element:
    """The root element of an XML file.

    Entities are refused, not expanded: no page format needs them, and they can only do harm.

    Raises:
        InputError: the file is missing, not well-formed, declares entities, or is larger or deeper than any page.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: {path.stat().st_size} bytes are too many for a page; export one file per page")
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if b"<!ENTITY" in content.replace(b"\0", b""):  # in UTF-16 every second byte is 0
        raise InputError(f"{path}: declares entities, which a page does not need; export it again")
    if (marks := content.count(b"<") + content.count(b"=")) > MAX_MARKS:
        raise InputError(f"{path}: {marks} tags and attributes are too many for a page; export one file per page")
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{path}: not well-formed XML ({short(str(error))}); export the page again") from None
    level = [root]
    for _ in range(MAX_DEPTH):
        level = [element for parent in level for element in parent]
    if level:
        raise InputError(f"{path}: more than {MAX_DEPTH} nested elements; export the page again")
    return root


def local(element: Element) -> str:
    """The name of an element without its namespace."""
    return element.tag.rpartition("}")[2]


def child(element: Element, *names: str) -> Element | None:
    """The first element along a path of local names, None if there is no such element."""
    for name in names:
        found = next((e for e in element if local(e) == name), None)
        if found is None:
            return None
        element = found
    return element


def line_id(element: Element, key: str, number: int) -> str:
    """The id of a text line without line breaks; `line{number}` if it has no id."""
    return " ".join(element.get(key, "").split()) or f"line{number}"


def points(text: str | None, path: Path, line: str) -> Points:
    """Coordinates written as "x,y x,y" (PAGE) or "x y x y" (ALTO).

    Raises:
        InputError: a coordinate is not a number or far off any page, or their number is odd.
    """
    numbers = (text or "").replace(",", " ").split()
    try:
        values = [float(number) for number in numbers]
    except ValueError:
        raise InputError(f"{path}: line {line}: points '{short(text)}' are not numbers; correct the line") from None
    if not all(abs(value) <= MAX_COORDINATE for value in values):  # written so that NaN also fails
        raise InputError(f"{path}: line {line}: points '{short(text)}' are not on any page; correct the line")
    if len(values) == 1:
        return []  # ALTO before 4.1: a baseline is one number, its height
    if len(values) % 2:
        raise InputError(f"{path}: line {line}: odd number of coordinates '{short(text)}'; correct the line")
    return list(zip(values[::2], values[1::2], strict=True))


def integer(text: str | None, default: int) -> int:
    """The whole number in an attribute; the default if it is not a number or beyond any page."""
    try:
        value = float(text or default)
    except (ValueError, OverflowError):
        return default
    return int(value) if math.isfinite(value) and abs(value) <= MAX_COORDINATE else default


def one_line(text: str) -> str:
    """The text of a line without line breaks, which some editors leave in it."""
    parts = [part.strip() for part in text.replace("\r", "\n").split("\n")]
    return " ".join(part for part in parts if part) if len(parts) > 1 else text


def short(text: str | None) -> str:
    """A text as a message quotes it: on one line, at most 80 characters."""
    text = " ".join((text or "")[:1000].split())
    return text if len(text) <= 80 else text[:77] + "..."
