"""Lines of PAGE and ALTO files, cut out of their page images."""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from jaxtyping import UInt8
from numpy import ndarray
from rich.progress import track

from htr_lightning.data.document import Line, Page, baseline_angle, find_image, read_page
from htr_lightning.data.image import crop_line, page_box, read_image, shrink_to_height
from htr_lightning.data.sample import Sample, Skipped
from htr_lightning.errors import InputError

MAX_SLOPE = 45.0  # degrees; a steeper baseline is a vertical or an upside-down line and is left as it stands
EMPTY, FAULTY = ("error", "skip", "keep"), ("error", "skip")
LEVEL = 0.3  # degrees; turning by less than this only blurs


class PageXml(Sequence[Sample]):
    """The lines of a folder of PAGE or ALTO files, in page and reading order.

    Args:
        root: folder of the data; None: what `fetch` returns.
        fetch: downloads the data and returns its folder.
        xml: glob of the XML files below `root`.
        images: folder of the page images below `root`; None: beside each XML file.
        splits: table `page<TAB>split` (page is the XML's stem) as a file below `root`, a full path, or
            `package:NAME` for one that ships with htr_lightning; None: every page.
        split: the split to read; None: every page.
        name: first part of every sample id.
        group: regular expression whose first group, matched on the page's stem, names the writer or document.
        max_height: crops taller than this are reduced to it, in pixels.
        empty: what to do with a line without text: "error", "skip" (counted) or "keep".
        faulty: what to do with a page that cannot be read, a line that cannot be cut out, or an id given twice: "error"
            or "skip" (counted; damaged images are found where `preload` is set).
        preload: cut all lines out at once and keep them in memory (a page is decoded once, not once a line).
    """

    def __init__(
        self,
        root: str | Path | None = None,
        fetch: Callable[[], Path] | None = None,
        xml: str = "**/*.xml",
        images: str | None = None,
        splits: str | None = None,
        split: str | None = None,
        name: str | None = None,
        group: str = "(.*)",
        max_height: int = 128,
        empty: str = "error",
        faulty: str = "error",
        preload: bool = True,
    ) -> None:
        if root is None and fetch is None:
            raise InputError("data.root is not set; give the folder of the pages, as in data.root=FOLDER")
        for option, value, choices in (("empty", empty, EMPTY), ("faulty", faulty, FAULTY)):
            if value not in choices:
                raise InputError(f"data.reader.{option}={value}: use one of {', '.join(choices)}")
        if Path(xml).is_absolute():
            raise InputError(f"data.reader.xml={xml}: give a pattern below data.root, such as **/*.xml")
        try:
            writers = re.compile(group)
        except re.error as error:
            raise InputError(f"data.reader.group={group}: not a regular expression ({error})") from None
        if not writers.groups:
            raise InputError(f"data.reader.group={group}: put the part that names the writer in parentheses")
        self.root = Path(root) if root is not None else fetch()  # type: ignore[misc]
        self.max_height = max_height
        self.skipped: list[Skipped] = []
        name = name or self.root.name
        entries: list[_Entry] = []
        faults: list[str] = []
        paths = self._paths(xml, splits, split, name, faulty)
        stems = Counter(path.stem for path in paths)
        for path in paths:
            title = path.stem if stems[path.stem] == 1 else path.relative_to(self.root).with_suffix("").as_posix()
            try:
                page = read_page(path)
            except InputError as error:
                self._leave_out([f"{name}/{title}"], "unreadable page", error, faulty)
                continue
            try:
                image = find_image(page, self.root / images if images else None)
            except InputError as error:
                ids = [f"{name}/{title}/{line.id}" for line in page.lines]
                self._leave_out(ids or [f"{name}/{title}"], "missing image", error, faulty)
                continue
            writer = writers.match(path.stem)
            for line in page.lines:
                entry = _Entry(f"{name}/{title}/{line.id}", page, image, line, writer[1] if writer else path.stem)
                if fault := _fault(line, page, empty, faulty):
                    if fault.skip:
                        self.skipped.append(Skipped(entry.id, fault.kind))
                    else:
                        faults.append(f"{entry.id}: {fault.kind}: {fault.remedy}")
                    continue
                entries.append(entry)
        if faults:
            more = f" (and {len(faults) - 1} more such lines)" if len(faults) > 1 else ""
            raise InputError(faults[0] + more)
        entries = self._without_twins(entries, faulty)
        if not entries:
            first = next(iter(self.skipped), None)
            left = f" ({len(self.skipped)} left out, first {first.id}: {first.detail or first.kind})" if first else ""
            raise InputError(
                f"{self.root}: no line with text in split '{split}' of {xml}; check root, xml and splits{left}"
            )
        self._entries = entries
        self._open_page: tuple[Path, UInt8[ndarray, "H W"]] | None = None
        self._crops: dict[int, UInt8[ndarray, "h w"]] = {}
        if preload:
            self._cut_all(f"reading {name} {split or ''}".strip(), faulty)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        entry = self._entries[index]
        if not (0 <= index < len(self)):
            index %= len(self)
        image = self._crops.get(index)
        if image is None:
            if self._open_page is None or self._open_page[0] != entry.image:
                self._open_page = entry.image, open_page(entry.page, entry.image)
            image = self._cut(entry, self._open_page[1])
        return Sample(entry.id, image, entry.line.text, entry.group)

    @property
    def ids(self) -> list[str]:
        return [entry.id for entry in self._entries]

    @property
    def texts(self) -> list[str]:
        return [entry.line.text for entry in self._entries]

    @property
    def groups(self) -> list[str]:
        return [entry.group for entry in self._entries]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        sizes = []
        for entry in self._entries:
            xs, ys = zip(*entry.line.polygon, strict=True)
            sizes.append((max(1, round(max(ys) - min(ys))), max(1, round(max(xs) - min(xs)))))
        return [image.shape if (image := self._crops.get(i)) is not None else s for i, s in enumerate(sizes)]

    def _paths(self, xml: str, splits: str | None, split: str | None, name: str, faulty: str) -> list[Path]:
        if not self.root.is_dir():
            raise InputError(f"{self.root}: no such folder; set data.root to where the pages are")
        paths = sorted(self.root.glob(xml))
        if not paths:
            raise InputError(f"{self.root}: no file matches '{xml}'; set data.root to the folder of the XML files")
        if splits is None or split is None:
            return paths
        pages = read_splits(self.root, splits)
        wanted = {page for page, its in pages.items() if its == split}
        if not wanted:
            raise InputError(f"{splits}: no page in split '{split}'; it has {', '.join(sorted(set(pages.values())))}")
        found = [path for path in paths if path.stem in wanted]
        if missing := sorted(wanted - {path.stem for path in found}):
            error = InputError(
                f"{self.root}: {len(missing)} pages of split '{split}' have no XML file, first '{missing[0]}'; "
                "complete the folder or use a split table of your own"
            )
            self._leave_out([f"{name}/{page}" for page in missing], "page without XML file", error, faulty)
        return found

    def _cut(self, entry: "_Entry", page: UInt8[ndarray, "H W"]) -> UInt8[ndarray, "h w"]:
        try:
            return shrink_to_height(cut_line(page, entry.line), self.max_height)
        except ValueError as error:
            raise InputError(f"{entry.id}: {error}; mend the line in {entry.page.path}") from None

    def _leave_out(self, ids: Iterable[str], kind: str, error: InputError, faulty: str) -> None:
        if faulty != "skip":
            raise error
        self.skipped += [Skipped(id, kind, str(error)) for id in ids]

    def _without_twins(self, entries: list["_Entry"], faulty: str) -> list["_Entry"]:
        kept: dict[str, _Entry] = {}
        for entry in entries:
            if kept.setdefault(entry.id, entry) is not entry:
                error = f"{self.root}: two lines have the id {entry.id}; give pages and lines names of their own"
                self._leave_out([entry.id], "id given twice", InputError(error), faulty)
        return list(kept.values())

    def _cut_all(self, title: str, faulty: str) -> None:
        """Keep the crop of every line; with faulty=skip, lines that cannot be cut out are left out."""
        by_image: dict[Path, list[int]] = {}
        for index, entry in enumerate(self._entries):
            by_image.setdefault(entry.image, []).append(index)

        def cut(index: int, page: UInt8[ndarray, "H W"]) -> UInt8[ndarray, "h w"] | InputError:
            try:
                return self._cut(self._entries[index], page)
            except InputError as error:
                if faulty != "skip":
                    raise
                return error

        def cut_page(indices: list[int]) -> list[tuple[int, UInt8[ndarray, "h w"] | InputError]]:
            first = self._entries[indices[0]]
            try:
                page = open_page(first.page, first.image)
            except InputError as error:
                if faulty != "skip":
                    raise
                return [(index, error) for index in indices]
            return [(index, cut(index, page)) for index in indices]

        found: dict[int, UInt8[ndarray, "h w"]] = {}
        with ThreadPoolExecutor() as pool:  # decoding releases the interpreter lock
            pages: Iterable = pool.map(cut_page, by_image.values())
            for crops in track(pages, description=title, total=len(by_image), transient=True):
                for index, crop in crops:
                    if isinstance(crop, InputError):
                        self._leave_out([self._entries[index].id], "unusable image", crop, faulty)
                    else:
                        found[index] = crop
        left = sorted(found)
        self._entries = [self._entries[index] for index in left]
        self._crops = {place: found[index] for place, index in enumerate(left)}


def open_page(page: Page, image: Path) -> UInt8[ndarray, "H W"]:
    """The image of a page, checked against the size that its XML file states.

    Raises:
        InputError: the image cannot be read, or has another size.
    """
    stated = (page.height, page.width)
    pixels = read_image(image, stated)
    if all(stated) and pixels.shape != stated:
        raise InputError(
            f"{page.path}: drawn on {page.width} x {page.height} pixels, but {image.name} has "
            f"{pixels.shape[1]} x {pixels.shape[0]}; use the image that the lines were drawn on"
        )
    return pixels


def cut_line(page: UInt8[ndarray, "H W"], line: Line) -> UInt8[ndarray, "h w"]:
    """One line out of its page, turned level by its baseline where that is only a slope.

    Raises:
        ValueError: the line's polygon has fewer than three points or lies off the page.
    """
    angle = baseline_angle(line.baseline)
    return crop_line(page, line.polygon, angle if LEVEL < abs(angle) < MAX_SLOPE else 0.0)


def read_splits(root: Path, table: str) -> dict[str, str]:
    """A table `page<TAB>split` with a header, as {page: split}.

    Raises:
        InputError: there is no such file, or a row has not two cells.
    """
    kind, _, name = table.rpartition(":")
    path = resources.files("htr_lightning.data") / "splits" / name if kind == "package" else root / table
    if not path.is_file():
        raise InputError(f"{path}: no such split table; set data.reader.splits to a table of page and split")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: the split table is not UTF-8; save it as UTF-8") from None
    rows = list(csv.reader(text.splitlines(), delimiter="\t"))[1:]
    if bad := next((row for row in rows if len(row) != 2), None):
        raise InputError(f"{table}: row {bad} has not the two cells page and split; mend it")
    return dict(rows)


class _Entry(NamedTuple):
    id: str
    page: Page
    image: Path
    line: Line
    group: str


class _Fault(NamedTuple):
    kind: str
    remedy: str
    skip: bool = False


def _fault(line: Line, page: Page, empty: str, faulty: str) -> _Fault | None:
    if not line.text.strip() and empty != "keep":
        return _Fault("line without text", "transcribe it, or set data.reader.empty=skip", skip=empty == "skip")
    skip = faulty == "skip"
    remedy = "mend it, or set data.reader.faulty=skip"
    if not line.polygon:
        return _Fault("line without polygon or box", remedy, skip)
    if len(line.polygon) < 3:
        return _Fault(f"polygon of {len(line.polygon)} points", remedy, skip)
    if page.height and page.width:
        left, top, right, bottom = page_box(line.polygon, (page.height, page.width))
        if right <= left or bottom <= top:
            return _Fault("polygon off the page", remedy, skip)
    return None
