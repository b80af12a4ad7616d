"""Read pages with their lines in reading order from PAGE, ALTO and METS files, and find their images."""

import re
from collections.abc import Iterable
from pathlib import Path

from htr_lightning.data.image import SUFFIXES
from htr_lightning.data.page import alto, mets, pagexml
from htr_lightning.data.page.page import Line, Page, Points, baseline_angle
from htr_lightning.data.page.xml import local, parse, short
from htr_lightning.errors import InputError

__all__ = ["Line", "Page", "Points", "baseline_angle", "expand", "find_image", "read_page"]

XML_FOLDERS = ("page", "alto", "xml")  # exports usually keep the images in the parent of such a folder


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
        case "mets":
            raise InputError(f"{path}: a METS file, not a page; rename it to mets.xml to read the pages that it lists")
        case name:
            raise InputError(
                f"{path}: neither PAGE nor ALTO (root element <{short(name)}>); export the page as PAGE or ALTO"
            )


def expand(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Replace each METS file with the pages it lists; return the resulting files and those left out.

    In the folder of a METS file and its subfolders, files that are not listed are left out, because an export may
    contain the same page several times, for example as PAGE and as ALTO.

    Raises:
        InputError: if a METS file is invalid.
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
    """Find the image of a page, using the file name given in the XML file or else the stem of the XML file.

    Args:
        page: the page.
        folder: folder containing the images; None searches the folder of the XML file, and its parent if that folder is
            called page, alto or xml.

    Raises:
        InputError: if the image is not found.
    """
    here = page.path.parent
    folders = [folder] if folder else [here, here.parent] if here.name.lower() in XML_FOLDERS else [here]
    named = re.split(r"[\\/]", page.image)[-1]
    endings = [ending for suffix in SUFFIXES for ending in (suffix, suffix.upper())]
    for parent in folders:
        for name in [named, *(f"{page.path.stem}{ending}" for ending in endings)]:
            if name and _is_file(parent / name):
                return parent / name
    wanted = f"'{short(named)}' or '{page.path.stem}.*'" if named else f"'{page.path.stem}.*'"
    raise InputError(f"{page.path}: no image {wanted} found in {folders[0]}; put the image there")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # an invalid file name
        return False
