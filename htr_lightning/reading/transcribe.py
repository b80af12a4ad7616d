"""Transcribe images, folders of images, and the lines of PAGE or ALTO pages.

Does not import torch.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from htr_lightning.data.affine import Affine, scaling
from htr_lightning.data.image import read_image
from htr_lightning.data.page.baseline import outline
from htr_lightning.data.page.crop import cut_polygon, line_angle, open_page
from htr_lightning.data.page.document import read_page
from htr_lightning.data.page.page import Line, Page
from htr_lightning.data.preprocess import Preprocess
from htr_lightning.data.sampler import READING_COLUMNS, READING_LINES, BucketBatchSampler
from htr_lightning.data.writing import is_blank, is_page
from htr_lightning.errors import InputError
from htr_lightning.reading.segment.page import Confidence, find_page
from htr_lightning.reading.sources import Source
from htr_lightning.transcription import Read, Transcriber, Transcription

CHUNK = 256  # number of lines kept in memory and sorted by width at a time
CHUNK_PIXELS = 1 << 26  # pixels kept in memory at a time, which only scans that are not reduced exceed

Indexed = list[tuple[int, UInt8[ndarray, "_ _"]]]  # pairs of index and image
Outcome = Transcription | str  # a string is the reason why an image cannot be read
ReadBatches = Callable[[Iterable[Indexed]], Iterable[list[tuple[int, Outcome]]]]


class TranscribedLine(NamedTuple):
    """A line of a source with its transcription, or the reason why it could not be transcribed."""

    source: Source
    line: Line | None  # None for an image of one line
    transcription: Transcription | None
    error: str | None = None
    note: str | None = None
    to_page: Affine | None = None  # map from points of the image that is read to those of the page
    page: Page | None = None  # the page in an image on which the lines were found

    @property
    def name(self) -> str:
        """The path of the file, followed by # and the line id if the file is a page."""
        return str(self.source.path) if self.line is None else f"{self.source.path}#{self.line.id}"

    @property
    def is_empty_page(self) -> bool:
        """Whether this is a page without lines, which has neither a transcription nor an error."""
        return self.transcription is None and self.error is None

    @property
    def text(self) -> str:
        """The transcribed text, which is empty if the line could not be read."""
        return "" if self.transcription is None else self.transcription.text


def transcribe(
    recognizer: Transcriber,
    sources: Iterable[Source],
    n_best: int = 0,
    advance: Callable[[int], None] = lambda files: None,
    parallel: bool = True,
    boxes: bool = False,
    pages: bool | None = None,
) -> Iterator[TranscribedLine]:
    """Transcribe every line of every source, in order.

    Lines of similar width are processed in batches; on a CPU, all cores are used in parallel. Sources are opened as
    they come, and a limited number of lines and pixels is kept in memory. Lines and files that cannot be read are
    included, with `error` set; so are pages without lines, with a note.

    Args:
        recognizer: recognizer in eval mode.
        sources: files to transcribe (see `find_sources`).
        n_best: maximum number of alternatives per line (see `Transcriber.read`).
        advance: function called with the number of sources finished since the last call, to update a progress bar.
        parallel: whether to use all cores.
        boxes: whether to find the characters of each text (see `Transcriber.read`).
        pages: whether images without an XML file are pages, on which lines are found, or single lines; None to decide
            for each image.
    """
    reduce = _reduction(recognizer)
    chunk: list[tuple[TranscribedLine, UInt8[ndarray, "_ _"] | None]] = []
    pixels, opened = 0, 0
    with (
        recognizer.workers() if parallel else nullcontext([recognizer.read]) as workers,
        _in_parallel([partial(worker, boxes=True) for worker in workers] if boxes else workers, n_best) as read,
    ):
        for source in sources:
            for line, image in _lines_or_note(recognizer, source, pages):
                if image is not None:
                    line, image = reduced(line, image, reduce)
                    pixels += image.size
                chunk.append((line, image))
                if len(chunk) >= CHUNK or pixels >= CHUNK_PIXELS:
                    yield from _transcribe_chunk(recognizer.preprocess, read, chunk)
                    advance(opened)
                    chunk, pixels, opened = [], 0, 0
            opened += 1
        yield from _transcribe_chunk(recognizer.preprocess, read, chunk)
        advance(opened)


def read_images(recognizer: Transcriber, images: Sequence[UInt8[ndarray, "_ _"]], n_best: int = 0) -> list[Outcome]:
    """Transcribe images of lines; return the reason as a string for each image that cannot be read."""
    found: list[Outcome] = [page_fault(recognizer)] * len(images)
    lines = [(index, image) for index, image in enumerate(images) if not is_page(image)]
    if len(lines) <= READING_LINES:  # too few to use several cores
        read = partial(read_batch, recognizer.read, n_best)
        outcomes = _read_in_batches(recognizer.preprocess, partial(map, read), lines)
    else:
        with recognizer.workers() as workers, _in_parallel(workers, n_best) as parallel:
            outcomes = _read_in_batches(recognizer.preprocess, parallel, lines)
    for (index, _), outcome in zip(lines, outcomes, strict=True):
        found[index] = outcome
    return found


def open_lines(
    source: Source, pages: bool | None = None, confidence: Confidence | None = None
) -> Iterator[tuple[TranscribedLine, UInt8[ndarray, "_ _"] | None]]:
    """Yield each line of a source before transcription, with its image, or with None if the line has an error.

    Args:
        source: file to open.
        pages: see `transcribe`.
        confidence: see `find_page`.
    """
    lines: Sequence[Line | None] = [None]
    try:
        if isinstance(source.image, str):
            lines = (read_page(source.path).lines if source.is_page else []) or lines
            raise InputError(source.image)
        if source.is_page:
            page = read_page(source.path)
            lines = page.lines or lines
            pixels = open_page(page, source.image)
        else:
            pixels = read_image(source.path)
    except InputError as error:
        for line in lines:
            yield TranscribedLine(source, line, None, str(error)), None
        return
    found = None if source.is_page else find_page(source.path, pixels, confidence, pages)
    if found is None and not source.is_page:
        yield TranscribedLine(source, None, None, to_page=np.eye(3)), pixels
        return
    yield from cut_lines(source, found or page, pixels, found)


def cut_lines(
    source: Source, page: Page, pixels: UInt8[ndarray, "_ _"], found: Page | None = None
) -> Iterator[tuple[TranscribedLine, UInt8[ndarray, "_ _"] | None]]:
    """Yield each line of a page as `open_lines` does.

    Args:
        source: file of the page.
        page: the page.
        pixels: its image.
        found: the page if its lines were found in the image, or None if they are those of a file.
    """
    for line, _, fault, detail in outline(page):
        opened = TranscribedLine(source, line, None, page=found)
        if fault:
            why = f"{fault} ({detail})" if detail else fault
            yield opened._replace(error=f"{source.path}#{line.id}: {why}; correct the line"), None
            continue
        try:
            crop, to_page = cut_polygon(pixels, line.polygon, line_angle(line, "reading"))
            yield opened._replace(to_page=to_page), crop
        except ValueError as error:
            yield opened._replace(error=f"{source.path}#{line.id}: {error}; correct the line"), None


def count_lines(source: Source) -> int:
    """Return the number of lines that `open_lines` yields for a source with an image."""
    try:
        return len(read_page(source.path).lines) if source.is_page else 1
    except InputError:
        return 1


def open_to_read(
    recognizer: Transcriber, source: Source, pages: bool | None = None, read: Read | None = None
) -> Iterator[tuple[TranscribedLine, UInt8[ndarray, "_ _"] | None]]:
    """Yield what `open_lines` yields, but an error for the image of a page where a single character is expected.

    Args:
        recognizer: recognizer that will read the lines.
        source: file to open.
        pages: see `transcribe`.
        read: reads lines to find out whether a page is upside down; None for the recognizer itself, which only one
            thread may use at a time.
    """
    if not recognizer.single_characters:
        yield from open_lines(source, pages, partial(_confidence, read or recognizer.read))
        return
    for line, image in open_lines(source, pages=False):
        if image is not None and not source.is_page and (pages or (pages is None and is_page(image))):
            yield line._replace(error=f"{line.name}: {page_fault(recognizer)}"), None
        else:
            yield line, image


def _confidence(read: Read, images: Sequence[UInt8[ndarray, "_ _"]]) -> float:
    """Return the mean confidence with which images of lines are read; 0 for those that cannot be read."""
    outcomes = read_batch(read, 0, list(enumerate(images)))
    found = [0.0 if isinstance(one, str) or not one.text else one.confidence for _, one in outcomes]
    return sum(found) / max(1, len(found))


def _lines_or_note(
    recognizer: Transcriber, source: Source, pages: bool | None
) -> Iterator[tuple[TranscribedLine, UInt8[ndarray, "_ _"] | None]]:
    """Yield what `open_to_read` yields, or, for a page without lines, a note."""
    empty = True
    for line, image in open_to_read(recognizer, source, pages):
        if pages is False and not source.is_page and image is not None and is_page(image):
            line = line._replace(note=f"{line.name}: looks like a page, but is read as one line; remove --lines")
        yield line, image
        empty = False
    if empty:
        yield TranscribedLine(source, None, None, note=f"{source.path}: the page has no lines"), None


def reduced(
    line: TranscribedLine,
    image: UInt8[ndarray, "H W"],
    reduce: Callable[[UInt8[ndarray, "_ _"]], UInt8[ndarray, "_ _"]],
) -> tuple[TranscribedLine, UInt8[ndarray, "h w"]]:
    """Return a line and its image after the first step of preprocessing."""
    small = reduce(image)
    if line.to_page is not None:
        scale = scaling(image.shape[1] / small.shape[1], image.shape[0] / small.shape[0])
        line = line._replace(to_page=line.to_page @ scale)
    return line, small


def _reduction(recognizer: Transcriber) -> Callable[[UInt8[ndarray, "_ _"]], UInt8[ndarray, "_ _"]]:
    """Return the first step of preprocessing, which lines may go through early since a second time has no effect."""
    several = {member.preprocess.max_rows for member in recognizer.members}
    return recognizer.preprocess.reduce if len(several) == 1 else lambda image: image


@contextmanager
def _in_parallel(workers: Sequence[Read], n_best: int) -> Iterator[ReadBatches]:
    """Yield a function that reads batches, using one thread per worker."""
    if len(workers) == 1:
        yield partial(map, partial(read_batch, workers[0], n_best))
        return
    idle: SimpleQueue[Read] = SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def read(batch: Indexed) -> list[tuple[int, Outcome]]:
        worker = idle.get()
        try:
            return read_batch(worker, n_best, batch)
        finally:
            idle.put(worker)

    with ThreadPoolExecutor(len(workers)) as pool:
        yield partial(pool.map, read)


def _transcribe_chunk(
    preprocess: Preprocess,
    read: ReadBatches,
    chunk: Sequence[tuple[TranscribedLine, UInt8[ndarray, "_ _"] | None]],
) -> Iterator[TranscribedLine]:
    images = [(index, image) for index, (_, image) in enumerate(chunk) if image is not None]
    outcomes = dict(zip((index for index, _ in images), _read_in_batches(preprocess, read, images), strict=True))
    for index, (line, image) in enumerate(chunk):
        outcome = outcomes.get(index)
        if outcome is None or image is None:
            yield line
        else:
            yield finished(line, image, outcome)


def finished(line: TranscribedLine, image: UInt8[ndarray, "_ _"], outcome: Outcome) -> TranscribedLine:
    """Return a line with the outcome of its transcription, and a note if its text is empty."""
    if isinstance(outcome, str):
        return line._replace(error=f"{line.name}: {outcome}")
    why = "no writing found" if is_blank(image) else "the recognizer found no text in the writing"
    return line._replace(transcription=outcome, note=line.note if outcome.text else f"{line.name}: {why}")


def _read_in_batches(preprocess: Preprocess, read: ReadBatches, images: Indexed) -> list[Outcome]:
    widths = [preprocess.width((image.shape[0], image.shape[1])) for _, image in images]
    batches = BucketBatchSampler(widths, READING_LINES, READING_COLUMNS)
    found: dict[int, Outcome] = {}
    for outcomes in read([images[index] for index in batch.indices] for batch in batches):
        found.update(outcomes)
    return [found[index] for index, _ in images]


def read_batch(read: Read, n_best: int, images: Indexed) -> list[tuple[int, Outcome]]:
    """Transcribe images as one batch; those that are not lines get the reason, and the others are read without them."""
    try:
        found = read([image for _, image in images], n_best)
        return [(index, transcription) for (index, _), transcription in zip(images, found, strict=True)]
    except ValueError as error:
        if len(images) == 1:
            return [(images[0][0], str(error))]
        return [outcome for image in images for outcome in read_batch(read, n_best, [image])]


def page_fault(recognizer: Transcriber) -> str:
    """Return the error for an image that looks like a page (see `is_page`)."""
    if recognizer.single_characters:
        return "looks like a whole page, but a single character is expected; crop single characters"
    return "looks like a whole page, but a single line is expected; use transcribe, which finds lines, or crop them"
