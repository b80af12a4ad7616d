"""Select the pages among XML files: those that a METS file lists, or else all PAGE and ALTO files."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from htr_lightning.data.files import nfc
from htr_lightning.data.page import mets
from htr_lightning.data.page.document import FORMATS, read_head
from htr_lightning.data.page.image_files import ImageFinder
from htr_lightning.data.page.twins import same_image
from htr_lightning.data.page.xml import short
from htr_lightning.errors import InputError

OTHER = "neither PAGE nor ALTO"
WITHOUT_PAGES = "METS file without pages"


class LeftOut(NamedTuple):
    """The reason why an XML file is not read as a page."""

    kind: str
    detail: str = ""


class Selection(NamedTuple):
    """The pages selected among XML files."""

    pages: list[Path]  # includes files that are not well-formed, which `read_page` reports
    images: dict[Path, Path]  # the image of each file for which there is one
    rivals: list[list[Path]]  # files of the same format that a METS file lists for one page
    left_out: dict[Path, LeftOut]
    faults: list[str]  # the errors of METS files that cannot be used

    @property
    def others(self) -> set[Path]:
        """The XML files that are no pages."""
        return {path for path, why in self.left_out.items() if why.kind == OTHER}


def select_pages(
    files: Iterable[Path], finder: ImageFinder, keep: Callable[[Path], bool] = lambda path: True
) -> Selection:
    """Select the pages among XML files.

    In the folder of a METS file and its subfolders, a file that is not listed is left out if a listed file describes
    the same image, because an export may contain each page in several formats. If a METS file lists a page as both PAGE
    and ALTO, PAGE is selected, because it is more expressive.

    Args:
        files: XML files of any kind.
        finder: lookup of the images.
        keep: function that returns whether a file listed in a METS file may be selected.
    """
    heads = {path: _head(path) for path in files}
    files = list(heads)
    listed: dict[Path, list[list[Path]]] = {}  # by METS file; one group of files for each page
    left_out: dict[Path, LeftOut] = {}
    faults: list[str] = []
    for path in [path for path in files if heads[path][0] == "mets"]:
        try:
            groups = [[file for file in group if keep(file)] for group in mets.read(path)]
        except InputError as error:
            faults.append(str(error))
            continue
        heads |= {file: _head(file) for group in groups for file in group if file not in heads}
        if preferred := [best for group in groups if (best := _preferred(group, heads))]:
            listed[path] = preferred
            repeated = [file for group in groups for file in group if heads[file][0] == "alto"]
            left_out |= dict.fromkeys(repeated, LeftOut("ALTO of a page that is read as PAGE"))
        else:
            left_out[path] = LeftOut(WITHOUT_PAGES)
    chosen = {file for groups in listed.values() for group in groups for file in group}
    left_out = {file: why for file, why in left_out.items() if file not in chosen}
    images = dict(_images(heads, finder))
    repeats = _repeats(chosen, images, [path for path in files if path not in images]) if chosen else {}
    pages: list[Path] = []
    for path in files:
        root, _ = heads[path]
        cover = next((one for one in listed if path.is_relative_to(one.parent)), None)
        if root == "mets":
            pages += [file for group in listed.get(path, []) for file in group]
        elif root and root not in FORMATS:
            left_out[path] = LeftOut(OTHER, f"root element <{short(root)}>")
        elif cover is not None and path in repeats and path not in left_out:
            left_out[path] = LeftOut(f"not listed in {cover.name}", f"describes the same page as {repeats[path].name}")
        elif path not in chosen and path not in left_out:
            pages.append(path)
    rivals = [group for groups in listed.values() for group in groups if len(group) > 1]
    return Selection(list(dict.fromkeys(pages)), images, rivals, left_out, faults)


def _head(path: Path) -> tuple[str, str]:
    try:
        return read_head(path)
    except InputError:
        return "", ""


def _preferred(group: list[Path], heads: dict[Path, tuple[str, str]]) -> list[Path]:
    """Return the files in the preferred format, or those that cannot be read if there are no others."""
    for root in (*FORMATS, ""):
        if found := [file for file in group if heads[file][0] == root]:
            return found
    return []


def _repeats(chosen: set[Path], images: dict[Path, Path], without: Iterable[Path]) -> dict[Path, Path]:
    """Return the chosen file for each other file with the same image, or without an image and with the same stem."""
    repeats: dict[Path, Path] = {}
    for group in same_image(images):
        if listed := next((path for path in group if path in chosen), None):
            repeats |= dict.fromkeys(set(group) - chosen, listed)
    stems = {nfc(path.stem): path for path in chosen}
    return repeats | {path: stems[nfc(path.stem)] for path in without if path not in chosen and nfc(path.stem) in stems}


def _images(heads: dict[Path, tuple[str, str]], finder: ImageFinder) -> Iterator[tuple[Path, Path]]:
    for path, (root, name) in heads.items():
        if root in FORMATS:
            with suppress(InputError):
                yield path, finder.find(path, name)
