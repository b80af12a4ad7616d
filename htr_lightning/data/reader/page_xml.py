"""Read the lines of PAGE and ALTO files, cropping them from the page images."""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from inspect import signature
from pathlib import Path
from typing import Annotated, NamedTuple

from annotated_types import Interval
from jaxtyping import UInt8
from numpy import ndarray
from rich.markup import escape
from rich.progress import track

from htr_lightning.data import archive
from htr_lightning.data.fault import EMPTY as NO_TEXT
from htr_lightning.data.files import nfc
from htr_lightning.data.image import read_size
from htr_lightning.data.page.baseline import outline
from htr_lightning.data.page.crop import ROTATE, check_page_size, crop_line, line_angle, open_page
from htr_lightning.data.page.document import Line, Page, read_page
from htr_lightning.data.page.image_files import ImageFinder
from htr_lightning.data.reader.page_xml_files import choose_pages
from htr_lightning.data.root import data_folder
from htr_lightning.data.sample import Reduce, Sample, Skipped
from htr_lightning.data.split import by_line, group_of, group_pattern, read_splits, split_groups, split_lines
from htr_lightning.errors import InputError, printable
from htr_lightning.parameters import Seed

CONTENTS = "the PAGE or ALTO files and their page images"
EMPTY, FAULTY = ("error", "skip", "keep"), ("error", "skip")
NUMBER = Interval(ge=0, le=10**9)
Part = Annotated[int, NUMBER] | Annotated[float, NUMBER]  # number of lines or fraction of the pages


class PageXml(Sequence[Sample]):
    """The lines in a folder of PAGE or ALTO files, ordered by page and, within each page, in reading order.

    A line without a usable polygon gets one from its baseline (see `outline`) and is listed in `repaired`.

    Args:
        root: folder or zip archive containing the data.
        fetch: function called with `root`, and with `repo` if given; returns the folder, downloading it if necessary.
            None uses `root`.
        repo: OWNER/NAME of a repository, passed to `fetch`; NAME is the default for `name` unless `root` is given.
        xml: glob pattern for the XML files below `root`. Several files that describe the same page are refused, unless
            a METS file among them lists one of the files.
        exclude: glob pattern for XML files to leave out.
        images: folder of the page images, relative to `root`; None searches near each XML file, as described in
            `ImageFinder.find`.
        splits: path to a table `page<TAB>split`, relative to `root`, where a page is an XML file's stem, or its path
            without the suffix; `package:NAME` for a table included in htr_lightning; random fractions of the pages,
            such as {train: 0.8, val: 0.1, test: 0.1}, with no group in two splits; or random numbers of lines, such as
            {train: 16, val: 10, test: 40}, where null takes all remaining lines. None reads all pages.
        split: split to read; None reads all pages.
        seed: random seed for random splits.
        name: first component of each sample id.
        group: regular expression matched against the stem of the XML file; its first group captures the writer or
            document. A pattern with a slash is matched against the path below `root`: `(.+)/` groups by folder.
        reduce: function applied to each cropped line; see `Preprocess.reduce`.
        rotate: "reading" rotates each line so that its text runs horizontally; "deskew" only turns regions upright by
            their orientation and removes slopes below 45 degrees. See `line_angle`.
        empty: what to do with a line without text ("error", "skip" or "keep"). Skipped lines are counted and reported.
        faulty: what to do with an unreadable page, a page without an image, a line that cannot be cropped, or a
            duplicate id ("error" or "skip").
        preload: whether to crop all lines up front and keep them in memory, so that each page is decoded only once.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        fetch: Callable[..., Path] | None = None,
        repo: str | None = None,
        xml: str = "**/*.xml",
        exclude: str | None = None,
        images: str | None = None,
        splits: str | Mapping[str, Part | None] | None = None,
        split: str | None = None,
        seed: Seed = 0,
        name: str | None = None,
        group: str = "(.*)",
        reduce: Reduce | None = None,
        rotate: str = "deskew",
        empty: str = "error",
        faulty: str = "error",
        preload: bool = True,
    ) -> None:
        for option, value, choices in (("rotate", rotate, ROTATE), ("empty", empty, EMPTY), ("faulty", faulty, FAULTY)):
            if value not in choices:
                raise InputError(f"data.reader.{option}={value}: expected one of {', '.join(choices)}")
        for option, pattern in (("xml", xml), ("exclude", exclude or "")):
            if Path(pattern).is_absolute():
                raise InputError(
                    f"data.reader.{option}={pattern}: expected a pattern relative to data.root, such as **/*.xml"
                )
        self._writers = group_pattern(group)
        if repo is not None and (fetch is None or "repo" not in signature(fetch).parameters):
            raise InputError(f"data.repo={repo}: this data set is not read from a repository; remove this override")
        self._source = "" if fetch is None else ", or remove data.root to download them"
        if root is not None and not Path(root).exists():
            raise InputError(f"{root}: no such folder; set data.root to the folder containing {CONTENTS}{self._source}")
        if fetch is not None:
            given = fetch(root=root) if repo is None else fetch(root=root, repo=repo)
        else:
            given = data_folder(root, CONTENTS) if root is None or Path(root).is_dir() else Path(root)
        self.root = archive.folder(given)
        self._reduce, self.rotate = reduce, rotate
        self.skipped: list[Skipped] = []
        self.repaired: dict[str, str] = {}  # how the polygon differs from the one in the file, keyed by sample id
        name = name or (repo.rpartition("/")[2] if repo and root is None else archive.name(Path(root or given)))
        self._entries: list[_Entry] = []
        faults: list[str] = []
        self._images = ImageFinder(self.root, self.root / images if images else None)
        paths = self._paths(xml, exclude, name)
        if images is not None and not (self.root / images).is_dir():
            raise InputError(f"data.reader.images={images}: no such folder in {self.root}; correct or remove this key")
        self._stems = Counter(path.stem for path in paths)
        paths = self._of_split(paths, splits, split, seed, name, faulty)
        for path in paths:
            title = printable(f"{name}/{path.stem if self._stems[path.stem] == 1 else self._where(path)}")
            opened = self._open(path, title, faulty)
            if opened is None:
                continue
            page, image = opened
            for line, repaired, fault, detail in outline(page):
                id = printable(f"{title}/{line.id}")
                if problem := _problem(page, line, fault, detail, empty, faulty):
                    if problem.skip:
                        self.skipped.append(Skipped(id, problem.kind, problem.detail, problem.option))
                    else:
                        value = f" ({problem.detail})" if problem.detail else ""
                        faults.append(f"{id}: {problem.kind}{value}; {problem.remedy}")
                    continue
                if repaired:
                    self.repaired[id] = repaired
                self._entries.append(_Entry(id, page, image, line, self._group(path)))
        if faults:
            more = f" (lines with faults: {len(faults)})" if len(faults) > 1 else ""
            raise InputError(faults[0] + more)
        self._entries = self._without_duplicates(self._entries, faulty)
        if split is not None and by_line(splits):
            chosen = split_lines([entry.id for entry in self._entries], splits, seed, str(self.root))
            self.skipped += [Skipped(e.id, "line not in any split") for e in self._entries if e.id not in chosen]
            self._entries = [entry for entry in self._entries if chosen.get(entry.id) == split]
        if not self._entries:
            kinds = Counter(skipped.kind for skipped in self.skipped)
            skipped = ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
            where = xml if split is None else f"{xml} for split '{split}'"
            why = f" (skipped: {skipped})" if skipped else ""
            raise InputError(f"{self.root}: no lines found in {where}{why}; check data.root and data.reader")
        self._open_page: tuple[Path, UInt8[ndarray, "H W"]] | None = None
        self._crops: dict[int, UInt8[ndarray, "h w"]] = {}
        if preload or faulty == "skip":  # otherwise, which lines are skipped would depend on `preload`
            self._crop_all(f"reading {name} {split or ''}".strip(), faulty, preload)

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
            image = self._crop(entry, self._open_page[1])
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
            size = max(1, round(max(ys) - min(ys))), max(1, round(max(xs) - min(xs)))
            sizes.append(size[::-1] if round(line_angle(entry.line, self.rotate) / 90) % 2 else size)
        return [image.shape if (image := self._crops.get(i)) is not None else s for i, s in enumerate(sizes)]

    def _paths(self, xml: str, exclude: str | None, name: str) -> list[Path]:
        """Return the page files."""
        chosen, parts = choose_pages(self.root, xml, exclude, self._images)
        self._first = {path: group[0] for group in parts for path in group}
        if not chosen.pages:
            kind = "PAGE or ALTO file" if chosen.left_out else "file"
            where = f"no {kind} matches data.reader.xml={xml}"
            if exclude is not None:
                where += f" but not data.reader.exclude={exclude}"
            if chosen.left_out:
                path, why = next(iter(chosen.left_out.items()))
                where += f" (other files: {len(chosen.left_out)}, first: {path.name}, {why.detail or why.kind})"
            raise InputError(f"{self.root}: {where}; set data.root to the folder containing {CONTENTS}{self._source}")
        self.skipped += [Skipped(f"{name}/{self._where(path)}", *why) for path, why in chosen.left_out.items()]
        return chosen.pages

    def _of_split(
        self,
        paths: list[Path],
        splits: str | Mapping[str, int | float | None] | None,
        split: str | None,
        seed: int,
        name: str,
        faulty: str,
    ) -> list[Path]:
        if splits is None or split is None or by_line(splits):
            return paths
        if not isinstance(splits, str):
            groups = [self._group(path) for path in paths]
            chosen = split_groups(groups, splits, seed, str(self.root))  # type: ignore[arg-type]
            return [path for path, group in zip(paths, groups, strict=True) if chosen[group] == split]
        pages = read_splits(self.root, splits)
        wanted = {page for page, its in pages.items() if its == split}
        if not wanted:
            raise InputError(
                f"{splits}: no pages in split '{split}' (available: {', '.join(sorted(set(pages.values())))}); add some"
            )
        names = {path: (nfc(self._where(path)), nfc(path.stem)) for path in paths}
        named = {path: next((name for name in its if name in pages), None) for path, its in names.items()}
        found = [path for path in paths if named[path] in wanted]
        if missing := sorted(wanted.difference(*names.values())):
            error = InputError(
                f"{self.root}: missing XML files for pages in split '{split}' ({len(missing)}, first: '{missing[0]}'); "
                "add the files, or set data.reader.splits to a custom table"
            )
            self._skip([f"{name}/{page}" for page in missing], "page without an XML file", error, faulty)
        self.skipped += [
            Skipped(f"{name}/{self._where(path)}", "page not in the split table")
            for path in paths
            if named[path] is None
        ]
        return found

    def _where(self, path: Path) -> str:
        return path.relative_to(self.root).with_suffix("").as_posix()

    def _group(self, path: Path) -> str:
        path = self._first.get(path, path)  # parts of an image belong to the same split
        pattern, twin = self._writers.pattern, self._stems[path.stem] > 1
        by_folder = "/" in pattern or (twin and pattern == "(.*)")
        return group_of(self._writers, self._where(path) if by_folder else path.stem, path.stem)

    def _open(self, path: Path, title: str, faulty: str) -> tuple[Page, Path] | None:
        """Return a page and the path of its image, or None if the page is skipped."""
        page = None
        kind = "unreadable page"
        try:
            page = read_page(path)
            kind = "missing image"
            image = self._images.find(path, page.image)
            if faulty == "skip":
                kind = "unusable image"
                check_page_size(page, image, read_size(image, (page.height, page.width)))
        except InputError as error:
            ids = [title] if page is None else [printable(f"{title}/{line.id}") for line in page.lines]
            self._skip(ids, kind, error, faulty)
            return None
        return page, image

    def _crop(self, entry: "_Entry", page: UInt8[ndarray, "H W"]) -> UInt8[ndarray, "h w"]:
        try:
            image = crop_line(page, entry.line, self.rotate)
        except ValueError as error:
            raise InputError(f"{entry.id}: {error}; correct the line in {entry.page.path}") from None
        return image if self._reduce is None else self._reduce(image)

    def _skip(self, ids: Iterable[str], kind: str, error: InputError, faulty: str) -> None:
        if faulty != "skip":
            raise error
        self.skipped += [Skipped(id, kind, str(error), "faulty") for id in ids]

    def _without_duplicates(self, entries: list["_Entry"], faulty: str) -> list["_Entry"]:
        kept: dict[str, _Entry] = {}
        for entry in entries:
            if kept.setdefault(entry.id, entry) is not entry:
                error = f"{self.root}: duplicate id {entry.id}; give pages and lines unique names"
                self._skip([entry.id], "duplicate id", InputError(error), faulty)
        return list(kept.values())

    def _crop_all(self, title: str, faulty: str, keep: bool) -> None:
        """Crop all lines, keeping the crops if `keep` is set; with faulty=skip, skip lines that cannot be cropped."""
        by_image: dict[Path, list[int]] = {}
        for index, entry in enumerate(self._entries):
            by_image.setdefault(entry.image, []).append(index)

        def crop(index: int, page: UInt8[ndarray, "H W"]) -> UInt8[ndarray, "h w"] | InputError:
            try:
                return self._crop(self._entries[index], page)
            except InputError as error:
                if faulty != "skip":
                    raise
                return error

        def crop_page(indices: list[int]) -> list[tuple[int, UInt8[ndarray, "h w"] | InputError]]:
            first = self._entries[indices[0]]
            try:
                page = open_page(first.page, first.image)
            except InputError as error:
                if faulty != "skip":
                    raise
                return [(index, error) for index in indices]
            return [(index, crop(index, page)) for index in indices]

        found: dict[int, UInt8[ndarray, "h w"] | None] = {}
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding releases the GIL
            pages: Iterable = pool.map(crop_page, by_image.values())
            title = escape(printable(title))  # a path may look like markup
            for crops in track(
                pages, description=title, total=len(by_image), transient=True, disable=not sys.stdout.isatty()
            ):
                for index, result in crops:
                    if isinstance(result, InputError):
                        self._skip([self._entries[index].id], "unusable image", result, faulty)
                    else:
                        found[index] = result if keep else None
        kept = sorted(found)
        self._entries = [self._entries[index] for index in kept]
        self._crops = {number: image for number, index in enumerate(kept) if (image := found[index]) is not None}


class _Entry(NamedTuple):
    id: str
    page: Page
    image: Path
    line: Line
    group: str


class _Problem(NamedTuple):
    kind: str
    detail: str  # the value that is at fault
    option: str  # name of the option that controls skipping
    remedy: str
    skip: bool


def _problem(page: Page, line: Line, fault: str, detail: str, empty: str, faulty: str) -> _Problem | None:
    if not line.text.strip() and empty != "keep":
        return _Problem(NO_TEXT, "", "empty", "transcribe it, or set data.reader.empty=skip", empty == "skip")
    if fault:
        return _Problem(
            fault, detail, "faulty", f"correct it in {page.path}, or set data.reader.faulty=skip", faulty == "skip"
        )
    return None
