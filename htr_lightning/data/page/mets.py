"""Read METS files (https://www.loc.gov/standards/mets), which list the pages of an export."""

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from htr_lightning.data.files import FileIndex
from htr_lightning.data.page.xml import integer, local, parse, short
from htr_lightning.errors import InputError


def read(path: Path) -> list[list[Path]]:
    """Return the XML files that a METS file lists for each page, in the order of its physical structure map.

    Pages without a local XML file are left out, so the list is empty if only images or remote files are listed.

    Raises:
        InputError: if some of the XML files are remote, or one is missing or outside the folder of the METS file.
    """
    root = parse(path)
    names = dict(_files(root))
    if all(map(_is_remote, names.values())):
        return []
    index = FileIndex()
    paths = {id: _inside(path, name, index) for id, name in names.items()}
    groups = [[paths[id] for id in ids if id in paths] for ids in _structure(root)]
    return [list(dict.fromkeys(group)) for group in groups if group] or [[file] for file in paths.values()]


def _files(root: Element) -> Iterator[tuple[str, str]]:
    """Yield the id and name of each XML file listed."""
    for file in (e for e in root.iter() if local(e) == "file"):
        for location in (e for e in file if local(e) == "FLocat"):
            name = next((value for key, value in location.attrib.items() if key.rpartition(":")[2] == "href"), "")
            if name.lower().endswith(".xml"):
                yield file.get("ID", name), name


def _structure(root: Element) -> list[list[str]]:
    """Return the file ids of each page, preferring the physical structure map."""
    maps = [e for e in root.iter() if local(e) == "structMap"]
    maps.sort(key=lambda e: e.get("TYPE", "").lower() != "physical")
    for structure in maps:
        pages = [e for e in structure.iter() if local(e) == "div" and any(local(c) == "fptr" for c in e)]
        if len(pages) > 1 and all("ORDER" in page.attrib for page in pages):
            pages.sort(key=lambda page: integer(page.get("ORDER"), 0))
        if pages:
            return [[e.get("FILEID", "") for c in p if local(c) == "fptr" for e in c.iter()] for p in pages]
    return []


def _is_remote(name: str) -> bool:
    return "://" in name and not name.startswith("file://")


def _inside(path: Path, name: str, index: FileIndex) -> Path:
    if _is_remote(name):
        raise InputError(f"{path}: lists {short(name)}, which is not a local file; include the pages in the export")
    name = name.removeprefix("file://")
    # Transkribus lists ALTO files as "/alto/...", and not all programs escape what a URI must escape
    candidates = dict.fromkeys(one for written in (name, unquote(name)) for one in (written, written.lstrip("/")))
    places = [path.parent / os.path.normpath(one.replace("\\", "/")) for one in candidates]
    below = [place for place in places if _is_below(path.parent, place)]
    if found := next(filter(_is_file, below), None):
        return found
    for place in below:  # perhaps with the name in another Unicode form, as archives from a Mac have it
        other = index.find(path.parent, os.path.relpath(place, path.parent))
        if other is not None and _is_below(path.parent, other):
            return other
    if places[0] not in below:
        raise InputError(
            f"{path}: lists {short(name)}, which is outside the folder of this METS file; move it into that folder"
        )
    raise InputError(
        f"{path}: lists {short(name)}, which is missing; export the pages again, or "
        f"remove {path.name} to read the files beside it"
    )


def _is_below(folder: Path, path: Path) -> bool:
    try:
        return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
    except (OSError, ValueError):  # an invalid file name
        return True


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
