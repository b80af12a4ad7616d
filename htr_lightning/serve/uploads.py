"""Transcribe uploaded files with the same code as `htr transcribe`."""

import asyncio
import math
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import BinaryIO, NamedTuple, TypeVar

from jaxtyping import UInt8
from numpy import ndarray

from htr_lightning.data.image import image_size, read_image
from htr_lightning.data.page.baseline import outline
from htr_lightning.data.page.document import read_page
from htr_lightning.data.page.page import Line, Page, page_box
from htr_lightning.data.writing import is_page
from htr_lightning.errors import InputError, printable
from htr_lightning.reading import page_out
from htr_lightning.reading.script import is_unknown, page_confidence
from htr_lightning.reading.sources import Source, find_sources
from htr_lightning.reading.transcribe import (
    TranscribedLine,
    count_lines,
    cut_lines,
    finished,
    open_lines,
    open_to_read,
    page_fault,
)
from htr_lightning.serve.answers import AlternativeText, BatchLine, CorrectedLine, FileText, LineText, Word
from htr_lightning.serve.batching import Batcher
from htr_lightning.serve.limits import Limits
from htr_lightning.transcription import Transcriber, Transcription

MAX_NAME = 200  # bytes; file systems allow 255
BAD_NAME = re.compile(r'[/\\:*?"<>|]|^\.|[. ]$')  # folders, and what some file systems do not allow
CHUNK_LINES, CHUNK_PIXELS = 64, 50_000_000  # of one request that are in memory at a time
WHOLE = "line_1"  # id of the line in an image of one line, as in the PAGE file that is written for it

Opened = list[tuple[TranscribedLine, UInt8[ndarray, "_ _"] | None]]
Item = TypeVar("Item")


class Upload(NamedTuple):
    """A file that a client sent, with a name that `check_name` has accepted."""

    name: str
    content: BinaryIO


class Served(NamedTuple):
    """A recognizer with its queue."""

    name: str
    recognizer: Transcriber
    batcher: Batcher
    alternatives: bool  # whether its decoder finds any
    sha256: str = ""  # of its file


@contextmanager
def private_folder() -> Iterator[Path]:
    """Yield a folder for the files of a request, and leave its name out of errors."""
    with TemporaryDirectory(prefix="htr-serve-") as private:
        folder = Path(private, "upload")  # names in XML files may lead to the folder above, which is private, too
        folder.mkdir()
        try:
            yield folder
        except InputError as error:
            raise InputError(without(folder, str(error))) from None


def save(uploads: Sequence[Upload], folder: Path) -> None:
    """Write files into a folder.

    Raises:
        InputError: if a name occurs twice.
    """
    for upload in uploads:
        try:
            with (folder / upload.name).open("xb") as file:
                shutil.copyfileobj(upload.content, file)
        except FileExistsError:
            raise InputError(f"{upload.name}: sent twice; give each file a name of its own") from None


def without(folder: Path, message: str) -> str:
    """Return a message in which files are named as they were sent."""
    for path in (folder, folder.parent):
        message = message.replace(f"{path}/", "").replace(f"{path}\\", "").replace(str(path), "the upload")
    return message


def _named(folder: Path, message: str | None) -> str | None:
    return None if message is None else without(folder, message)


def check_name(name: str) -> str:
    """Return the name of a file; raise InputError if it may lead elsewhere or be refused by a file system."""
    if not name or BAD_NAME.search(name) or printable(name) != name or len(name.encode()) > MAX_NAME:
        raise InputError(f"file name {name[:MAX_NAME]!r}: expected up to {MAX_NAME} bytes without folders, control "
                         r'characters and any of / \ : * ? " < > |; rename the file')  # fmt: skip
    return name


def sources_of(folder: Path, names: Sequence[str], limits: Limits) -> tuple[list[Source], list[str]]:
    """Return the images and pages among saved files, and notes on files that are left out.

    One image and one XML file belong together, whatever they are called.

    Raises:
        InputError: if a file cannot be used, or there are more pixels or lines than allowed.
    """
    pages = [name for name in names if name.lower().endswith(".xml")]
    images = [name for name in names if name not in pages]
    if not images:
        raise InputError(f"{', '.join(pages) or 'files'}: no image; send the image of the page together with its XML")
    notes: list[str] = []
    if len(images) == len(pages) == 1:
        sources = [Source(folder / pages[0], folder / images[0], is_page=True)]
    else:
        sources, errors, notes = find_sources([str(folder / name) for name in names])
        if errors:
            raise InputError(errors[0])
    for source in sources:
        if isinstance(source.image, str):
            raise InputError(source.image)
        image_size(source.image, max_pixels=limits.pixels)
    check_lines(sources[0].path, sum(map(count_lines, sources)), limits)
    return sources, [without(folder, note) for note in notes]


def check_lines(path: Path, lines: int, limits: Limits) -> None:
    """Raise InputError if a request has more lines than allowed."""
    if lines > limits.lines:
        raise InputError(f"{path}: {lines} lines in one request (maximum {limits.lines}); send fewer pages "
                         "at a time, or start htr serve with a larger --max-lines")  # fmt: skip


async def transcribe(served: Served, source: Source, folder: Path, n_best: int, limits: Limits) -> FileText:
    """Transcribe the lines of a source.

    Raises:
        InputError: if none of its lines can be read, or there are more than allowed.
    """
    assert isinstance(source.image, Path)
    chunks, lines = _chunks(served, source), []
    while chunk := await asyncio.to_thread(next, chunks, None):
        images = [image for _, image in chunk if image is not None]
        outcomes = iter(await served.batcher.read(images, n_best))
        done = [line if image is None else finished(line, image, next(outcomes)) for line, image in chunk]
        lines += [line._replace(error=_named(folder, line.error), note=_named(folder, line.note)) for line in done]
        check_lines(source.path, len(lines), limits)
    if lines and all(line.error for line in lines):
        raise InputError(lines[0].error or "")
    height, width = await asyncio.to_thread(image_size, source.image)
    page = await asyncio.to_thread(read_page, source.path) if source.is_page else None
    if page is not None and page.width and page.height:  # possibly without the EXIF rotation
        width, height = page.width, page.height
    texts = [_line_text(line, (height, width)) for line in lines]
    xml = source.path.name if source.is_page else None
    unknown = is_unknown(served.recognizer, page_confidence(line.transcription for line in lines))
    return FileText(name=source.image.name, xml=xml, width=width, height=height, lines=texts, unknown_script=unknown)


def _chunks(served: Served, source: Source) -> Iterator[Opened]:
    """Yield a few opened lines at a time, since lines that overlap can have any number of pixels in all."""
    chunk: Opened = []
    pixels = 0
    for line, image in open_to_read(served.recognizer, source, read=served.batcher.read_here):
        chunk.append((line, image))
        pixels += 0 if image is None else image.size
        if len(chunk) == CHUNK_LINES or pixels > CHUNK_PIXELS:
            yield chunk
            chunk, pixels = [], 0
    if chunk:
        yield chunk


def until(deadline: float, items: Iterable[Item]) -> Iterator[Item]:
    """Yield items until a time of the monotonic clock: a thread cannot be stopped from outside.

    Raises:
        TimeoutError: if the time has passed.
    """
    for item in items:
        if monotonic() > deadline:
            raise TimeoutError
        yield item


async def transcribe_images(served: Served, uploads: Sequence[Upload], limits: Limits, n_best: int) -> list[BatchLine]:
    """Transcribe images of lines; an image that cannot be read does not keep the others from being read.

    Raises:
        InputError: if none of them can be read, or there are too many.
    """
    if len(uploads) > limits.lines:
        raise InputError(f"{len(uploads)} images in one request (maximum {limits.lines}); send fewer images at a time, "
                         "or start htr serve with a larger --max-lines")  # fmt: skip
    found: list[BatchLine] = []
    for start in range(0, len(uploads), CHUNK_LINES):
        part = uploads[start : start + CHUNK_LINES]
        opened = await asyncio.to_thread(_open_all, served, part, limits)
        images = [image for image in opened if not isinstance(image, str)]
        outcomes = iter(await served.batcher.read(images, n_best))
        for (name, _), image in zip(part, opened, strict=True):
            line = TranscribedLine(Source(Path(name), Path(name)), None, None)
            line = line._replace(error=image) if isinstance(image, str) else finished(line, image, next(outcomes))
            text = _line_text(line, (0, 0))
            found.append(
                BatchLine(name=name, **text.model_dump(exclude={"id", "box", "polygon", "baseline", "region"}))
            )
    if found and all(line.error for line in found):
        raise InputError(found[0].error or "")
    return found


def _open_all(served: Served, uploads: Sequence[Upload], limits: Limits) -> list[UInt8[ndarray, "_ _"] | str]:
    return [_open(served, upload, limits) for upload in uploads]


def _open(served: Served, upload: Upload, limits: Limits) -> UInt8[ndarray, "_ _"] | str:
    try:
        image = read_image(upload.name, content=upload.content.read(), max_pixels=limits.pixels)
    except InputError as error:
        return str(error)
    return f"{upload.name}: {page_fault(served.recognizer)}" if is_page(image) else image


def _line_text(line: TranscribedLine, size: tuple[int, int]) -> LineText:
    height, width = size
    whole = [(0.0, 0.0), (float(width), 0.0), (float(width), float(height)), (0.0, float(height))]
    polygon = whole if line.line is None else line.line.polygon
    read = line.transcription
    return LineText(
        id=WHOLE if line.line is None else line.line.id,
        text=line.text,
        confidence=None if read is None else read.confidence,
        alternatives=[
            AlternativeText(text=one.text, confidence=one.confidence) for one in (read.alternatives if read else ())
        ],
        words=[
            Word(text=text, confidence=confidence)
            for text, confidence in (zip(read.text.split(), read.words, strict=True) if read else ())
        ],
        box=page_box(polygon, size) if polygon else None,
        polygon=polygon,
        baseline=[] if line.line is None else line.line.baseline,
        region="" if line.line is None else line.line.region,
        error=line.error,
        note=line.note,
    )


def export(
    served: Served,
    upload: Upload,
    image: Upload | None,
    lines: Sequence[CorrectedLine],
    form: str,
    language: str,
    limits: Limits,
    deadline: float = math.inf,
) -> bytes:
    """Return corrected lines as a file of one of `page_out.SUFFIXES`; lines that are not given keep their text.

    Args:
        served: recognizer that finds where the words lie.
        upload: PAGE or ALTO file of a page, or the image of a line.
        image: image of the page; without it, the lines have no words.
        lines: corrected lines.
        form: format.
        language: code of the language to state, or "".
        limits: limits on requests.
        deadline: time of the monotonic clock at which nobody waits for the file any more.

    Raises:
        InputError: if a file cannot be read, has two lines of the same id, or has no line of a given id.
        TimeoutError: if the deadline has passed.
    """
    about = page_out.check_about([served.name], form, language, option="language=")
    with private_folder() as folder:
        save([upload] if image is None else [upload, image], folder)
        path = folder / upload.name
        page = read_page(path) if path.suffix.lower() == ".xml" else None
        picture: Path | str = path if page is None else f"format={form}: needs the image of the page; send it as image"
        if image is not None:
            if page is None:
                raise InputError(f"image {image.name}: sent with {upload.name}, which is no PAGE or ALTO file; send "
                                 "one image as file, or the XML file of the page as file")  # fmt: skip
            picture = folder / image.name
        if isinstance(picture, Path):
            image_size(picture, max_pixels=limits.pixels)
        source = Source(path, picture, page is not None)
        drawn = _page_of(path, lines) if page is None else None
        known: dict[str, Line | None] = {WHOLE: None}
        if (described := page or drawn) is not None:
            outlined = [line for line, *_ in outline(described)]
            known = {line.id: line for line in outlined}
            if len(known) < len(outlined):
                twice = next(id for id, count in Counter(line.id for line in outlined).items() if count > 1)
                raise InputError(f"line {twice[:MAX_NAME]!r}: more than once in {upload.name}; give each line an id "
                                 "of its own")  # fmt: skip
        if unknown := next((line.id for line in lines if line.id not in known), None):
            raise InputError(f"line {unknown[:MAX_NAME]!r}: not in {upload.name}; use the ids that it has")
        if len(known) > limits.lines:
            raise InputError(f"{upload.name}: {len(known)} lines (maximum {limits.lines}); export fewer at a time")
        texts = {line.id: Transcription(line.text, line.confidence) for line in lines}
        found = [TranscribedLine(source, line, texts.get(id), page=drawn) for id, line in known.items()]
        if found and isinstance(picture, Path) and served.recognizer.aligns:
            opened = open_lines(source, pages=False)
            if drawn is not None:
                opened = cut_lines(source, drawn, read_image(path), drawn)
            pairs = zip(found, until(deadline, opened), strict=True)
            found = [_aligned(served.recognizer, line, *its) for line, its in pairs]
        return page_out.page_file(source, found, form, about)


def _aligned(
    recognizer: Transcriber, line: TranscribedLine, opened: TranscribedLine, image: UInt8[ndarray, "_ _"] | None
) -> TranscribedLine:
    """Return a corrected line with the characters of its text; what a person has confirmed is certain."""
    read = line.transcription
    if read is None or image is None:
        return line
    try:
        (boxes,) = recognizer.align([image], [read.text])
    except ValueError:  # an image that is no line
        return line
    if read.confidence == 1:
        boxes = tuple(one._replace(confidence=1.0) for one in boxes)
    return line._replace(transcription=read._replace(boxes=boxes), to_page=opened.to_page)


def _page_of(path: Path, lines: Sequence[CorrectedLine]) -> Page | None:
    """Return the page in an image on which lines were found, or None if it is an image of one line."""
    height, width = image_size(path)
    found = [Line(one.id, "", one.polygon, one.baseline, one.region) for one in lines if one.baseline]
    return Page(path, path.name, width, height, found) if found else None
