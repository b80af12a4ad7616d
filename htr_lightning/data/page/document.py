"""PAGE, ALTO and METS files as plain data: pages, their text lines in reading order, their images."""

import re
from collections.abc import Iterable
from pathlib import Path

from htr_lightning.data.image import SUFFIXES
from htr_lightning.data.page import alto, mets, pagexml
from htr_lightning.data.page.page import Line, Page, Points, baseline_angle
from htr_lightning.data.page.xml import local, parse, short
from htr_lightning.errors import InputError

__all__ = ["Line", "Page", "Points", "baseline_angle", "expand", "find_image", "read_page"]

XML_FOLDERS = ("page", "alto", "xml")  # an export keeps its images beside such a folder


def read_page(path: Path) -> Page:
    """Parse a PAGE (2010-2019) or ALTO (2-4) file, with or without its namespace.

    Raises:
        InputError: the file is missing, not XML, or neither PAGE nor ALTO.
    """
    root = parse(path)
    match local(root):
        case "PcGts":
            return pagexml.read(path, root)
        case "alto":
            return alto.read(path, root)
        case "mets":
            raise InputError(f"{path}: METS lists pages and is none; name it mets.xml, and they are read in its order")
        case name:
            raise InputError(
                f"{path}: neither PAGE nor ALTO, its root is <{short(name)}>; export the page as one of the two"
            )


def expand(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Files with each METS among them replaced by the pages that it lists, in its order; and the files left out.

    In the folder of a METS and below it only listed pages are read: an export holds each page several times, as PAGE
    and as ALTO, and files that are none.

    Raises:
        InputError: a METS cannot be used.
    """
    paths = list(paths)
    lists = {path: mets.read(path) for path in paths if mets.is_mets(path)}
    listed = {page for pages in lists.values() for page in pages}
    found: list[Path] = []
    left_out = []
    for path in paths:
        if path in lists:
            found += lists[path]
        elif path in listed:
            continue
        elif any(path.is_relative_to(its.parent) for its in lists):
            left_out.append(path)
        else:
            found.append(path)
    return list(dict.fromkeys(found)), left_out


def find_image(page: Page, folder: Path | None = None) -> Path:
    """The image of a page: by the name that its file gives, else by the file's own stem.

    Args:
        page: a page as `read_page` gives it.
        folder: where the images are; None: beside the file, or above its folder where that is called page or alto.

    Raises:
        InputError: there is none; the message names what was looked for.
    """
    here = page.path.parent
    folders = [folder] if folder else [here, here.parent] if here.name.lower() in XML_FOLDERS else [here]
    named = re.split(r"[\\/]", page.image)[-1]
    endings = [ending for suffix in SUFFIXES for ending in (suffix, suffix.upper())]
    for place in folders:
        for name in [named, *(f"{page.path.stem}{ending}" for ending in endings)]:
            if name and _is_file(place / name):
                return place / name
    wanted = f"'{short(named)}' nor '{page.path.stem}.*'" if named else f"'{page.path.stem}.*'"
    raise InputError(f"{page.path}: no image {wanted} in {folders[0]}; put it there under one of these names")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no file can have
        return False
