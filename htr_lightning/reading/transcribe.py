"""From files to text: images, folders of them, and PAGE or ALTO pages with their lines."""

import glob
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from jaxtyping import UInt8
from numpy import ndarray

from htr_lightning.data.image import SUFFIXES, read_image
from htr_lightning.data.page.crop import crop_line, open_page
from htr_lightning.data.page.document import Line, Page, expand, find_image, read_page
from htr_lightning.data.page.outline import outline
from htr_lightning.data.preprocess import Preprocess
from htr_lightning.data.sampler import READING_COLUMNS, READING_LINES, BucketBatchSampler
from htr_lightning.errors import InputError
from htr_lightning.transcription import Read, Transcriber, Transcription

PAGE_ROWS = 800  # pixels; a line scanned that high is far wider
UNREAD = (".pdf", ".djvu", ".heic")  # what scans come as, too: named as what cannot be read, not passed over
CHUNK = 256  # lines held in memory while they are sorted by width

Numbered = list[tuple[int, UInt8[ndarray, "_ _"]]]  # images and their places in a chunk
Outcomes = list[tuple[int, Transcription | str]]  # and what was read in them, or why nothing was


class Source(NamedTuple):
    """A file to read: an image that is one line, or a page of lines."""

    path: Path
    page: Page | None

    @property
    def lines(self) -> int:
        return 1 if self.page is None else len(self.page.lines)


class Reading(NamedTuple):
    """One line read; `fault` says in one line why it could not be, `note` what its reader should know."""

    source: Source
    line: Line | None  # None for an image that is one line
    transcription: Transcription | None
    fault: str | None = None
    note: str | None = None

    @property
    def name(self) -> str:
        """The file, and behind # the line's id where the file has several."""
        return str(self.source.path) if self.line is None else f"{self.source.path}#{self.line.id}"


def find_sources(names: Iterable[str]) -> tuple[list[Source], list[str]]:
    """The files that names stand for, and a fault for each that stands for none.

    A name is a file, a folder (searched to any depth) or a glob. A METS stands for the pages that it lists, and in its
    folder they alone are read. Images that belong to one of the pages are read through their page only.
    """
    sources: list[Source] = []
    faults: list[str] = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            paths = [p for p in sorted(path.rglob("*")) if p.suffix.lower() in (".xml", *SUFFIXES, *UNREAD)]
            if not paths:
                faults.append(f"{name}: no image and no XML file in this folder; check the path")
        elif path.exists():
            paths = [path]
        else:
            paths = [Path(found) for found in sorted(glob.glob(name, recursive=True))]
            if not paths:
                faults.append(f"{name}: no such file or folder, and as a pattern it matches nothing; check the path")
        files = [p for p in paths if p.suffix.lower() == ".xml"]
        try:
            listed, _ = expand(files)
        except InputError as error:
            faults.append(str(error))
            listed = [page for page in files if "mets" not in page.stem.lower()]  # the rest is read all the same
        pages = []
        for page in listed:
            try:
                pages.append(Source(page, read_page(page)))
            except InputError as error:
                faults.append(str(error))
        images = [Source(p, None) for p in paths if p.suffix.lower() != ".xml"]
        together = pages + images
        sources += together if listed != files else sorted(together, key=lambda source: source.path)
    owned = {image.resolve() for source in sources if source.page and (image := _image_of(source.page))}
    found = {source.path: source for source in sources if source.page or source.path.resolve() not in owned}
    return list(found.values()), faults


def transcribe(
    recognizer: Transcriber,
    sources: Iterable[Source],
    n_best: int = 0,
    advance: Callable[[int], None] = lambda lines: None,
) -> Iterator[Reading]:
    """Every line of every source in order, read in batches of similar width.

    A line that cannot be read comes with its fault; nothing is left out. On a CPU every core reads batches of its own.

    Args:
        recognizer: in evaluation mode.
        sources: see `find_sources`.
        n_best: alternatives of each line, see `Transcriber.read`.
        advance: called with the number of lines done, for a progress bar.
    """
    chunk: list[tuple[Reading, UInt8[ndarray, "_ _"] | None]] = []
    with recognizer.workers() as workers, _in_parallel(workers, n_best) as read:
        for source in sources:
            for reading, image in open_lines(source):
                chunk.append((reading, image))
                if len(chunk) == CHUNK:
                    yield from _read(recognizer.preprocess, read, chunk)
                    advance(len(chunk))
                    chunk = []
        yield from _read(recognizer.preprocess, read, chunk)
        advance(len(chunk))


@contextmanager
def _in_parallel(workers: Sequence[Read], n_best: int) -> Iterator[Callable[[Iterable[Numbered]], Iterable[Outcomes]]]:
    """A function that reads batches, with a thread for each worker."""
    if len(workers) == 1:
        yield lambda batches: map(partial(_read_batch, workers[0], n_best), batches)
        return
    idle: SimpleQueue[Read] = SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def read(batch: Numbered) -> Outcomes:
        worker = idle.get()
        try:
            return _read_batch(worker, n_best, batch)
        finally:
            idle.put(worker)

    with ThreadPoolExecutor(len(workers)) as pool:
        yield partial(pool.map, read)


def open_lines(source: Source) -> Iterator[tuple[Reading, UInt8[ndarray, "_ _"] | None]]:
    """Every line of a source, not read yet, with its image; a line that has none comes with its fault."""
    if source.page is None:
        try:
            yield Reading(source, None, None), read_image(source.path)
        except InputError as error:
            yield Reading(source, None, None, str(error)), None
        return
    try:
        pixels = open_page(source.page, find_image(source.page))
    except InputError as error:
        lines: Sequence[Line | None] = source.page.lines or [None]
        for line in lines:
            yield Reading(source, line, None, str(error)), None
        return
    for line, _, fault in outline(source.page):
        if fault:
            yield Reading(source, line, None, f"{source.path}#{line.id}: {fault}; correct the line"), None
            continue
        try:
            yield Reading(source, line, None), crop_line(pixels, line, rotate="reading")
        except ValueError as error:
            yield Reading(source, line, None, f"{source.path}#{line.id}: {error}; correct the line"), None


def _read(
    preprocess: Preprocess,
    read: Callable[[Iterable[Numbered]], Iterable[Outcomes]],
    chunk: Sequence[tuple[Reading, UInt8[ndarray, "_ _"] | None]],
) -> Iterator[Reading]:
    readings = [reading for reading, _ in chunk]
    images = [(number, image) for number, (_, image) in enumerate(chunk) if image is not None]
    widths = [preprocess.width((image.shape[0], image.shape[1])) for _, image in images]
    batches = BucketBatchSampler(widths, READING_LINES, READING_COLUMNS)
    for outcomes in read([images[index] for index in batch.indices] for batch in batches):
        for number, outcome in outcomes:
            if isinstance(outcome, Transcription):
                readings[number] = readings[number]._replace(transcription=outcome)
            else:
                readings[number] = readings[number]._replace(fault=f"{readings[number].name}: {outcome}")
    for number, image in images:
        alone = readings[number].line is None and readings[number].fault is None
        of_lines = preprocess.max_rows is not None  # a photo of a single character may be of any size
        if alone and of_lines and image.shape[0] >= max(PAGE_ROWS, image.shape[1] / 2):
            note = (
                f"{readings[number].name}: {image.shape[1]} x {image.shape[0]} pixels look like a page but were read "
            )
            readings[number] = readings[number]._replace(
                note=note + "as one line; give the PAGE or ALTO file of its lines"
            )
    yield from readings


def _read_batch(read: Read, n_best: int, images: Numbered) -> Outcomes:
    try:
        found = read([image for _, image in images], n_best)
        return [(number, transcription) for (number, _), transcription in zip(images, found, strict=True)]
    except ValueError as error:  # one image is no line: the others are read without it
        if len(images) == 1:
            return [(images[0][0], str(error))]
        return [outcome for image in images for outcome in _read_batch(read, n_best, [image])]


def _image_of(page: Page) -> Path | None:
    try:
        return find_image(page)
    except InputError:
        return None  # told when the page is opened
