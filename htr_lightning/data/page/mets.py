"""Read METS files (https://www.loc.gov/standards/mets), which list the pages of an export."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from htr_lightning.data.page.xml import integer, local, parse, short
from htr_lightning.errors import InputError


def is_mets(path: Path) -> bool:
    """Return whether a file is METS, based on its name (such as mets.xml or 0815_mets.xml) and its root element."""
    return path.stem.lower().endswith("mets") and local(parse(path)) == "mets"


def read(path: Path) -> list[Path]:
    """Return the PAGE or ALTO files listed in a METS file, one per page, in the order of its physical structure map.

    If a page is listed as both PAGE and ALTO, PAGE is preferred because it is more expressive.

    Raises:
        InputError: if no PAGE or ALTO file is listed, a listed file is missing or outside the folder of the METS file,
            or two files of the same format are listed for one page.
    """
    root = parse(path)
    paths = dict(_files(root))
    groups = [[paths[name] for name in names if name in paths] for names in _structure(root)]
    pages = []
    for group in groups if any(groups) else [[name] for name in paths.values()]:
        files = [_inside(path, name) for name in dict.fromkeys(group)]
        if files:
            pages.append(_best(path, files))
    if not pages:
        raise InputError(f"{path}: lists no XML files; include the pages as PAGE or ALTO in the export")
    return list(dict.fromkeys(pages))


def _files(root: Element) -> Iterator[tuple[str, str]]:
    """Yield the id and path of each XML file listed."""
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


def _inside(path: Path, name: str) -> Path:
    if "://" in name and not name.startswith("file://"):
        raise InputError(f"{path}: lists {short(name)}, which is not a local file; include the pages in the export")
    file = path.parent / unquote(name.removeprefix("file://")).replace("\\", "/")
    try:
        inside = file.resolve().is_relative_to(path.parent.resolve())
        found = inside and file.is_file()
    except (OSError, ValueError):  # an invalid file name
        inside, found = True, False
    if not inside:
        raise InputError(
            f"{path}: lists {short(name)}, which is outside the folder of this METS file; move it into that folder"
        )
    if not found:
        raise InputError(f"{path}: lists {short(name)}, which is missing; export the pages again")
    return file


def _best(path: Path, files: list[Path]) -> Path:
    if len(files) == 1:
        return files[0]
    kinds = {file: local(parse(file)) for file in files}
    for kind in ("PcGts", "alto"):
        found = [file for file in files if kinds[file] == kind]
        if len(found) > 1:
            names = " and ".join(file.relative_to(path.parent).as_posix() for file in found[:2])
            raise InputError(f"{path}: lists {names} for the same page; select one with data.reader.xml=FOLDER/*.xml")
        if found:
            return found[0]
    raise InputError(f"{path}: lists {files[0].name}, which is neither PAGE nor ALTO; export the page again")
