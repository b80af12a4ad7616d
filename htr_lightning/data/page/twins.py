"""Find pages that several XML files describe, and glob patterns that select one file for each page."""

import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from glob import escape
from itertools import groupby, takewhile
from pathlib import Path, PurePath

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from htr_lightning.data.files import PerFolder, file_hash, matches
from htr_lightning.data.page.document import read_page
from htr_lightning.errors import InputError

SAMPLE = 65_536  # number of bytes
MAX_PAIRS = 1_000_000  # pairs of lines that are compared; files with more are assumed to overlap


def same_image(images: Mapping[Path, Path]) -> list[list[Path]]:
    """Return the groups of XML files that refer to the same image, by a symbolic link or to a copy of it included.

    Equal images in one folder are no copies but scans of their own, such as those of blank pages or forms.

    Args:
        images: image of each XML file.
    """
    by_image: defaultdict[Path, list[Path]] = defaultdict(list)
    real = PerFolder(os.path.realpath)
    for xml, image in images.items():
        by_image[Path(real(image))].append(xml)
    candidates = [list(by_image)]
    for key in (_size, _sample, file_hash):  # each is slower than the one before, and computed for fewer images
        candidates = [group for some in candidates for group in _grouped(some, key) if len(group) > 1]
    for some in candidates:
        originals: dict[int, Path] = {}
        for _, group in groupby(sorted(some), key=lambda path: path.parent):
            for number, image in enumerate(group):  # the first of one folder belongs to the first of the others
                if (original := originals.setdefault(number, image)) is not image:
                    by_image[original] += by_image.pop(image)
    return [group for group in by_image.values() if len(group) > 1]


def overlapping(group: Sequence[Path]) -> list[Path]:
    """Return the XML files of one image that contain a line which another of them contains, too.

    Files that describe different parts of an image, such as the two pages of an open book, are not returned.
    """
    boxes = [_boxes(path) for path in group]
    return [
        path
        for number, path in enumerate(group)
        if any(_overlap(boxes[number], other) for position, other in enumerate(boxes) if position != number)
    ]


def told(root: Path, twins: Sequence[Sequence[Path]], images: Mapping[Path, Path]) -> str:
    """Return a message about groups of files, each of which describes one page; it names two files of the first."""
    first, second = _below(root, twins[0][:2])
    image = images.get(twins[0][0])
    page = f"image, {image.name}" if image else "page"
    return f"{first} and {second} describe the same {page} (pages described more than once: {len(twins)})"


def choices(
    root: Path, files: Iterable[Path], pages: Iterable[Path], twins: Sequence[Sequence[Path]]
) -> Iterator[tuple[str, bool]]:
    """Yield glob patterns that leave exactly one file of each group and all other pages.

    Args:
        root: folder to which the patterns are relative.
        files: all XML files that may match.
        pages: pages selected so far.
        twins: groups of pages, each of which describes one page.

    Yields:
        A pattern, and whether the files that match it are to be excluded rather than selected.
    """
    groups = [_below(root, group) for group in twins]
    available, selected = set(_below(root, files)), set(_below(root, pages))
    alone = selected.difference(*groups)

    def separates(pattern: str, excluding: bool) -> bool:
        kept = {file for file in (selected if excluding else available) if matches(file, pattern) != excluding}
        return alone <= kept <= selected and all(len(kept.intersection(group)) == 1 for group in groups)

    first, second = groups[0][:2]
    for one, other in ((first, second), (second, first)):
        patterns = [(pattern, False) for pattern in _patterns(one, other)]
        patterns += [(pattern, True) for pattern in _patterns(other, one)]
        if choice := next((pattern for pattern in patterns if separates(*pattern)), None):
            yield choice


def _below(root: Path, paths: Iterable[Path]) -> list[PurePath]:
    return [PurePath(os.path.relpath(path, root)) for path in paths]


def _grouped(paths: Iterable[Path], key: Callable[[Path], Hashable]) -> list[list[Path]]:
    groups: defaultdict[Hashable, list[Path]] = defaultdict(list)
    for path in paths:
        groups[key(path)].append(path)
    return list(groups.values())


def _size(path: Path) -> int:
    return path.stat().st_size


def _sample(path: Path) -> bytes:
    """Return some bytes from the middle of a file."""
    with path.open("rb") as file:
        file.seek(max(0, (_size(path) - SAMPLE) // 2))
        return file.read(SAMPLE)


def _boxes(path: Path) -> tuple[Float64[ndarray, "N 4"], tuple[int, int]]:
    """Return the bounding box (left, top, right, bottom) of each line, and the stated size of the page."""
    try:
        page = read_page(path)
    except InputError:  # reported when the page is read
        return np.zeros((0, 4)), (0, 0)
    outlines = [np.array(points, dtype=np.float64) for line in page.lines if (points := line.polygon or line.baseline)]
    boxes = [np.concatenate((points.min(0), np.maximum(points.max(0), points.min(0) + 1))) for points in outlines]
    return np.array(boxes).reshape(-1, 4), (page.width, page.height)


def _overlap(
    one: tuple[Float64[ndarray, "N 4"], tuple[int, int]], other: tuple[Float64[ndarray, "M 4"], tuple[int, int]]
) -> bool:
    """Return whether any two lines have more than half of the smaller one in common."""
    (a, size), (b, other_size) = one, other
    if len(a) * len(b) > MAX_PAIRS:
        return True
    if all(size) and all(other_size):
        b = b * np.tile(np.divide(size, other_size), 2)  # one format may be scaled
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = (high - low).clip(0).prod(2)
    smaller = np.minimum((a[:, 2:] - a[:, :2]).prod(1)[:, None], (b[:, 2:] - b[:, :2]).prod(1))
    return bool((common > smaller / 2).any())


def _patterns(one: PurePath, other: PurePath) -> Iterator[str]:
    """Yield patterns that match a file but probably not the other one, from specific to general."""
    if one.parent != other.parent:
        folder = "".join(f"{escape(part)}/" for part in one.parent.parts)
        yield f"{folder}*{one.suffix}"
        if folder:
            yield f"{folder}**/*{one.suffix}"
        for part in one.parent.parts:
            if part not in other.parent.parts:
                yield f"**/{escape(part)}/**/*{one.suffix}"
    same = _common(one.stem, other.stem)
    for start in (same - 1, same):  # with a separator such as a dot or underscore if there is one
        if 0 <= start < len(one.stem) and (start == same or not one.stem[start].isalnum()):
            yield f"**/*{escape(one.stem[start:])}{one.suffix}"
    same = _common(one.stem[::-1], other.stem[::-1])
    if same < len(one.stem):
        yield f"**/{escape(one.stem[: len(one.stem) - same])}*{one.suffix}"
    yield f"**/*{one.suffix}"


def _common(one: str, other: str) -> int:
    """Return the length of the common beginning of two texts."""
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))
