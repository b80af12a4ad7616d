"""Find the images and pages that names on the command line refer to.

Does not import torch.
"""

import glob
import os
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from htr_lightning.data.files import PerFolder, files_below, is_special, matches
from htr_lightning.data.image import OTHER_SUFFIXES, SUFFIXES
from htr_lightning.data.page.document import read_head
from htr_lightning.data.page.image_files import ImageFinder
from htr_lightning.data.page.selection import LeftOut, select_pages
from htr_lightning.data.page.twins import choices, overlapping, same_image, told
from htr_lightning.errors import InputError, printable


class Source(NamedTuple):
    """A file to transcribe: an image of one line, or a page with lines."""

    path: Path
    image: Path | str  # image of the page or line; a string is the reason why a page has none
    is_page: bool = False  # whether the path is that of an XML file, which is read when its lines are opened


class Found(NamedTuple):
    """The files that names refer to."""

    sources: list[Source]
    errors: list[str]  # names and files that cannot be used
    notes: list[str]  # XML files that are left out


def find_sources(names: Iterable[str]) -> Found:
    """Find the files that names refer to.

    A name is a file, a folder (searched recursively) or a glob pattern. A METS file stands for the pages it lists. An
    image that belongs to a page is transcribed only as part of that page. Files that describe the same lines of a page
    are errors, because each line would be transcribed several times. Only the beginnings of XML files are read.
    """
    sources: dict[str, Source] = {}  # by absolute path, because a file may be named twice
    errors: list[str] = []
    left_out: dict[Path, LeftOut] = {}
    images: dict[Path, Path] = {}
    rivals: list[list[Path]] = []
    unreadable: list[Path] = []
    absolute = PerFolder(os.path.abspath)
    for name in names:
        try:
            paths = _paths_of(name)
        except InputError as error:
            errors.append(str(error))
            continue
        by_suffix: defaultdict[str, list[Path]] = defaultdict(list)
        for path in paths:
            by_suffix[path.suffix.lower()].append(path)
        unreadable += [path for suffix in OTHER_SUFFIXES for path in by_suffix.pop(suffix, ())]
        files = by_suffix.pop(".xml", [])
        finder = ImageFinder(given=Path(name) if os.path.isdir(name) else None)
        chosen = select_pages(files, finder)
        errors += chosen.faults
        images |= chosen.images
        rivals += chosen.rivals
        left_out |= chosen.left_out
        together = [Source(path, chosen.images.get(path) or _fault(finder, path), True) for path in chosen.pages]
        together += [Source(path, path) for some in by_suffix.values() for path in some]
        if chosen.pages == [path for path in files if path not in chosen.left_out]:
            together.sort(key=lambda source: source.path.parts)
        if not together and chosen.left_out:
            errors += _told_left_out(chosen.left_out)
        sources |= {absolute(source.path): source for source in together}
    if unreadable:
        more = f", the first of {len(unreadable)} such files" if len(unreadable) > 1 else ""
        errors.append(f"{min(unreadable)}: a format that cannot be read{more}; convert to PNG, JPEG or TIFF")
    left_out = {path: why for path, why in left_out.items() if absolute(path) not in sources}
    pages = [source.path for source in sources.values() if source.is_page]
    groups = same_image({path: images[path] for path in pages if path in images})
    listed_twice = {path for group in rivals for path in group}
    twins = rivals + [found for group in groups if not listed_twice & set(group) and (found := overlapping(group))]
    if twins:
        errors.append(_told_twins(twins, pages, left_out, images))
    refused = {path for group in twins for path in group}
    real = PerFolder(os.path.realpath)
    owned = {real(image) for image in images.values()}
    kept = [
        source
        for source in sources.values()
        if (source.is_page or not owned or real(source.path) not in owned)
        and not (refused and source.path in refused)  # the hash of a path takes longer than this test
    ]
    return Found(kept, errors, [note for note in _told_left_out(left_out) if note not in errors])


def _paths_of(name: str) -> list[Path]:
    path = Path(name)
    if not name:
        raise InputError("empty file name; check the path")
    if path.is_dir():
        paths = [file for file in files_below(path) if file.suffix.lower() in (".xml", *SUFFIXES, *OTHER_SUFFIXES)]
        if not paths:
            raise InputError(f"{name}: no images or XML files in this folder; check the path")
        return paths
    if is_special(path):
        raise InputError(f"{name}: not a regular file; save it as a file first")
    if path.suffix.lower() == ".zip" and path.is_file():
        raise InputError(f"{name}: a zip archive; unpack it, and name the folder")
    if path.exists():
        return [path]
    paths = [path for path in _matching(path) if not is_special(path)]
    if not paths:
        raise InputError(f"{name}: no such file or folder, and no file matches it as a pattern; check the path")
    return paths


def _matching(pattern: Path) -> list[Path]:
    """Return the files that match a glob pattern, in which `**` follows links in the same way as a folder does."""
    fixed = Path(*takewhile(lambda part: not glob.has_magic(part), pattern.parts))
    if "**" in pattern.parts and fixed.is_dir():
        inside = pattern.relative_to(fixed).as_posix()
        return [path for path in files_below(fixed) if matches(path.relative_to(fixed), inside)]
    return [Path(found) for found in sorted(glob.glob(str(pattern))) if not os.path.isdir(found)]


def _fault(finder: ImageFinder, path: Path) -> str:
    """Return the reason why a page has no image."""
    try:
        return f"{finder.find(path, read_head(path)[1])}: cannot be read; check the path"
    except InputError as error:
        return str(error)


def _told_left_out(left_out: Mapping[Path, LeftOut]) -> list[str]:
    """Return one line for each reason why XML files are left out."""
    told = []
    for kind, count in Counter(why.kind for why in left_out.values()).items():
        first, why = next((path, why) for path, why in left_out.items() if why.kind == kind)
        more = f", the first of {count} such files" if count > 1 else ""
        told.append(printable(f"{first}: not transcribed: {kind}{f' ({why.detail})' if why.detail else ''}{more}"))
    return told


def _told_twins(
    twins: Sequence[Sequence[Path]], pages: Sequence[Path], left_out: Iterable[Path], images: Mapping[Path, Path]
) -> str:
    """Return an error for pages that several files describe, with patterns that select one file for each page."""
    root = Path(os.path.commonpath([os.path.abspath(path.parent) for path in pages]))
    if not any(path.is_absolute() for path in pages):
        root = Path(os.path.relpath(root))
    files = [*pages, *(path for path in left_out if path in images)]
    patterns = [
        shlex.quote(os.path.join(glob.escape(str(root)), pattern))
        for pattern, excluding in choices(root, files, pages, twins)
        if not excluding
    ]
    remedy = f"select one file for each page, e.g. with {' or '.join(patterns)}" if patterns else "name one of them"
    return f"{root}: {told(root, twins, images)}; none of them is transcribed; {remedy}"
