"""Parse untrusted XML files, limiting their size and depth and rejecting DTDs, and query them by local name."""

import re
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element, TreeBuilder, tostring
from xml.parsers import expat

from htr_lightning.data.page.page import Points
from htr_lightning.errors import InputError

MAX_BYTES = 10_000_000  # a page with an outline for every glyph has about three million bytes
MAX_MARKS = 1_000_000  # maximum number of tags and attributes, which determine the memory used by the tree
MAX_DEPTH = 100  # maximum nesting depth; real pages have a depth of about ten
MAX_COORDINATE = 10_000_000
MAX_COORDINATES = 200_000  # maximum number of characters in the coordinates of a polygon, for at least 10,000 points
MAX_LINES = 20_000  # maximum number of lines on a page; a page of a newspaper has about three thousand
NUMBERS = re.compile(r"[0-9eE.,+\-\s]*")  # float() would also accept "nan", "1_000" and digits of other scripts
POINTS = re.compile(r"[^, ]+[, ][^, ]+(?: [^, ]+[, ][^, ]+)*|[^, ]+(?:,[^, ]+)*")  # "x,y x,y", "x y x y" or "x,y,x,y"


# Characters that XML cannot contain, even as references
ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Document(NamedTuple):
    """A whole XML file: its root element with the comments inside it, and what stands before and after it."""

    before: str  # comments and processing instructions
    root: Element
    after: str

    def written(self) -> bytes:
        """Return the content of the file."""
        return (
            f'<?xml version="1.0" encoding="UTF-8"?>\n{self.before}'.encode()
            + write(self.root)
            + self.after.encode()
            + b"\n"
        )


def write(root: Element) -> bytes:
    """Return an element as UTF-8, without a declaration; characters that XML cannot contain are replaced by U+FFFD."""
    for element in root.iter():
        for key, value in element.attrib.items():
            element.set(key, ILLEGAL.sub("\ufffd", value))
        element.text = element.text and ILLEGAL.sub("\ufffd", element.text)
    return tostring(root, encoding="utf-8")


def parse(path: Path) -> Element:
    """Parse an XML file and return its root element, with the names of elements and attributes as written in the file.

    An internal DTD is rejected, because no page format needs one, and its entities and default values of attributes can
    expand a small file to gigabytes. Namespace prefixes are kept rather than replaced for the same reason: a long
    namespace would be repeated in the name of every element.

    Raises:
        InputError: if the file is missing, not well-formed, too large or too deeply nested, or has an internal DTD.
    """
    return _parsed(path, TreeBuilder()).root


def parse_document(path: Path) -> Document:
    """Parse an XML file so that it can be written again after changes; see `parse`."""
    return _parsed(path, TreeBuilder(insert_comments=True, insert_pis=True))


def _parsed(path: Path, builder: TreeBuilder) -> Document:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise InputError(f"{path}: not found; check the path") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the file") from None
    if len(content) > MAX_BYTES:
        raise InputError(f"{path}: too large (maximum {MAX_BYTES} bytes); export one file per page")
    if (marks := content.count(b"<") + content.count(b"=")) > MAX_MARKS:
        raise InputError(
            f"{path}: too many tags and attributes ({marks}, maximum {MAX_MARKS}); export one file per page"
        )
    try:
        document = _tree(path, content, builder)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise InputError(f"{path}: not well-formed XML ({short(str(error))}); export the page again") from None
    level = [document.root]
    for _ in range(MAX_DEPTH):
        level = [element for parent in level for element in parent]
    if level:
        raise InputError(f"{path}: elements are nested more than {MAX_DEPTH} levels deep; export the page again")
    return document


def _tree(path: Path, content: bytes, builder: TreeBuilder) -> Document:
    parser = expat.ParserCreate()
    outside, depth = ["", ""], [0, 0]  # what stands before and after the root; the depth, and whether it has ended

    def start_doctype(_name: str, _system: str | None, _public: str | None, internal: int) -> None:
        if internal:
            raise InputError(f"{path}: contains an internal DTD, which is not allowed; export the page without it")

    def skip_entity(name: str, _parameter: int) -> None:
        raise ValueError(f"undefined entity &{name};")

    def start(name: str, attributes: dict[str, str]) -> None:
        depth[0] += 1
        builder.start(name, attributes)

    def end(name: str) -> None:
        depth[0] -= 1
        depth[1] = not depth[0]
        builder.end(name)

    def comment(text: str) -> None:
        if depth[0]:
            builder.comment(text)
        else:
            outside[depth[1]] += f"<!--{text}-->\n"

    def instruction(target: str, text: str) -> None:
        if depth[0]:
            builder.pi(target, text)
        else:
            outside[depth[1]] += f"<?{target} {text}?>\n"

    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CommentHandler, parser.ProcessingInstructionHandler = comment, instruction
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler, parser.SkippedEntityHandler = start_doctype, skip_entity
    parser.Parse(content, True)
    return Document(outside[0], builder.close(), outside[1] and f"\n{outside[1]}")


def local(element: Element) -> str:
    """Return the name of an element without its namespace prefix, or "" for a comment."""
    return element.tag.rpartition(":")[2] if isinstance(element.tag, str) else ""


def child(element: Element, *names: str) -> Element | None:
    """Return the first element at a path of local names, or None if there is no such element."""
    for name in names:
        found = next((e for e in element if local(e) == name), None)
        if found is None:
            return None
        element = found
    return element


def text_lines(page: Element, path: Path) -> list[Element]:
    """Return all text lines of a page in the order of the file.

    Raises:
        InputError: if there are too many.
    """
    lines = [e for e in page.iter() if local(e) == "TextLine"]
    if len(lines) > MAX_LINES:
        raise InputError(f"{path}: too many lines ({len(lines)}, maximum {MAX_LINES}); export one file per page")
    return lines


def line_id(element: Element, key: str, number: int) -> str:
    """Return the id of a text line, with line breaks replaced by spaces, or `line{number}` if it has no id."""
    return " ".join(element.get(key, "").split()) or f"line{number}"


def points(text: str | None) -> tuple[Points, str]:
    """Parse coordinates in the form "x,y x,y" (PAGE) or "x y x y" (ALTO).

    Returns:
        The points and an empty string; or, if the coordinates are invalid, no points and the coordinates with the
        reason.
    """
    try:
        values = _coordinates(text or "")
    except ValueError as error:
        return [], f"'{short(text)}': {error}"
    return list(zip(values[::2], values[1::2], strict=True)), ""


def _coordinates(text: str) -> list[float]:
    if len(text) > MAX_COORDINATES:
        raise ValueError("too many points")
    if not NUMBERS.fullmatch(text):
        raise ValueError("not numbers")
    text = " ".join(text.strip(", \t\r\n").split()).replace(" ,", ",").replace(", ", ",")
    try:
        values = [float(number) for number in text.replace(" ", ",").split(",")] if text else []
    except ValueError:
        raise ValueError("not numbers") from None
    if values and max(max(values), -min(values)) > MAX_COORDINATE:
        raise ValueError("out of range")
    if len(values) == 1:
        return []  # before ALTO 4.1, a baseline may be a single y coordinate
    if len(values) % 2:
        raise ValueError("odd number of coordinates")
    if values and not POINTS.fullmatch(text):
        raise ValueError("commas do not separate x from y")
    return values


def number(text: str | None, default: float = 0.0) -> float:
    """Return the value of an attribute, or the default if it is missing, not a number or out of range."""
    try:
        value = float(text or default)
    except ValueError:
        return default
    return value if abs(value) <= MAX_COORDINATE else default  # NaN fails this comparison as well


def integer(text: str | None, default: int) -> int:
    """Return the value of an attribute as an integer, or the default if it is not a number or is out of range."""
    return int(number(text, float(default)))


def one_line(text: str) -> str:
    """Replace line breaks of any kind, which some editors leave in the text of a line, with spaces."""
    parts = text.splitlines()
    return text if parts == [text] else " ".join(part.strip() for part in parts if part.strip())


def short(text: str | None) -> str:
    """Shorten text to a single line of at most 80 characters for use in a message."""
    text = " ".join((text or "")[:1000].split())
    return text if len(text) <= 80 else text[:77] + "..."
