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

XML_FOLDERS = ("page", "alto", "xml")  # an export has its images beside such a folder


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
            raise InputError(
                f"{path}: METS is a list of pages, not a page; name it mets.xml, and its pages are read in order"
            )
        case name:
            raise InputError(
                f"{path}: neither PAGE nor ALTO, its root is <{short(name)}>; export the page as one of them"
            )


def expand(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """The files, with every METS replaced by the pages that it lists, in its order; and the files that are not read.

    In and below the folder of a METS only listed pages are read: an export has each page several times, as PAGE and as
    ALTO, and other files.

    Raises:
        InputError: a METS cannot be used.
    """
    paths = list(paths)
    lists = {path: mets.read(path) for path in paths if mets.is_mets(path)}
    listed = {page for pages in lists.values() for page in pages}
    found: list[Path] = []
    unlisted = []
    for path in paths:
        if path in lists:
            found += lists[path]
        elif path in listed:
            continue
        elif any(path.is_relative_to(mets_file.parent) for mets_file in lists):
            unlisted.append(path)
        else:
            found.append(path)
    return list(dict.fromkeys(found)), unlisted


def find_image(page: Page, folder: Path | None = None) -> Path:
    """The image of a page: by the name that its file states, or else by the stem of the file.

    Args:
        page: see `read_page`.
        folder: of the images; None: that of the file, or the one above it if that is called page, alto or xml.

    Raises:
        InputError: there is no such image.
    """
    here = page.path.parent
    folders = [folder] if folder else [here, here.parent] if here.name.lower() in XML_FOLDERS else [here]
    named = re.split(r"[\\/]", page.image)[-1]
    endings = [ending for suffix in SUFFIXES for ending in (suffix, suffix.upper())]
    for parent in folders:
        for name in [named, *(f"{page.path.stem}{ending}" for ending in endings)]:
            if name and _is_file(parent / name):
                return parent / name
    wanted = f"'{short(named)}' nor '{page.path.stem}.*'" if named else f"'{page.path.stem}.*'"
    raise InputError(f"{page.path}: no image {wanted} in {folders[0]}; put it there under one of these names")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no file can have
        return False
