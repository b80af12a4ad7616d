"""Read pages with their lines in reading order from PAGE and ALTO files."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError, XMLPullParser

from htr_lightning.data.page import alto, pagexml
from htr_lightning.data.page.page import Line, Page, Points, baseline_angle
from htr_lightning.data.page.xml import local, parse, short
from htr_lightning.errors import InputError

__all__ = ["Line", "Page", "Points", "baseline_angle", "read_head", "read_page"]

FORMATS = ("PcGts", "alto")  # root elements of pages
HEAD = 65_536  # bytes that contain the root element and the image name of almost all pages
SLICE = 4096  # bytes parsed at a time


def read_page(path: Path) -> Page:
    """Read a PAGE (2010-2019) or ALTO (2-4) file, with or without a namespace.

    Raises:
        InputError: if the file is missing, not XML, or neither PAGE nor ALTO.
    """
    root = parse(path)
    match local(root):
        case "PcGts":
            return pagexml.read(path, root)
        case "alto":
            return alto.read(path, root)
        case name:
            raise InputError(
                f"{path}: neither PAGE nor ALTO (root element <{short(name)}>); export the page as PAGE or ALTO"
            )


def read_head(path: Path) -> tuple[str, str]:
    """Return the names of the root element and of the image, reading only the beginning of the file if possible.

    Raises:
        InputError: if the file is missing or not XML.
    """
    try:
        with path.open("rb") as file:
            content = file.read(HEAD)
    except OSError:
        content = b""  # the error is raised by `parse`
    # Without a document type declaration, there is nothing to expand.
    if b"<!DOCTYPE" not in content.replace(b"\0", b""):
        try:
            if found := _find_head(_events(content)):
                return found
        except (ParseError, ValueError, LookupError):
            pass  # the error is raised by `parse`
    root = parse(path)
    return _find_head((event, e) for e in root.iter() for event in ("start", "end")) or (local(root), "")


def _events(content: bytes) -> Iterator[tuple[str, Element]]:
    parser: XMLPullParser[Any] = XMLPullParser(("start", "end"))
    for start in range(0, len(content), SLICE):
        parser.feed(content[start : start + SLICE])
        yield from parser.read_events()  # type: ignore[misc]


def _find_head(events: Iterable[tuple[str, Element]]) -> tuple[str, str] | None:
    root = ""
    for event, element in events:
        name = local(element).rpartition("}")[2]  # XMLPullParser writes {namespace}name
        root = root or name
        if root not in FORMATS:
            return root, ""
        if name == "fileName" and event == "end":
            return root, (element.text or "").strip()
        if name == "Page":
            return root, element.get("imageFilename", "")
    return None
