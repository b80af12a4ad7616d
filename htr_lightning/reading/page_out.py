"""Transcriptions as PAGE files, ready to be corrected in the usual editors."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps

from htr_lightning.data.page import pagexml
from htr_lightning.data.page.page import Line, Page
from htr_lightning.data.page.xml import local, parse
from htr_lightning.errors import InputError
from htr_lightning.output import writing
from htr_lightning.reading.transcribe import Source, TranscribedLine


def to_page_xml(source: Source, lines: Sequence[TranscribedLine]) -> bytes:
    """The page of a source with the transcriptions of its lines; a line that could not be read keeps its text.

    A PAGE file keeps everything else that it has; from ALTO or a single image a new PAGE file is made.
    """
    page = source.page
    if page is None:
        return pagexml.write(_page_of_line(source.path, lines))
    found = [_line(one.line, one) for one in lines if one.line is not None]
    if local(parse(source.path)) == "PcGts":
        return pagexml.replace_texts(source.path, [line for line in found if line.confidence is not None])
    return pagexml.write(page._replace(lines=found))


def _line(line: Line, transcribed: TranscribedLine) -> Line:
    read = transcribed.transcription
    return line if read is None else line._replace(text=read.text, confidence=read.confidence)


def _page_of_line(path: Path, lines: Sequence[TranscribedLine]) -> Page:
    """An image that is one line, as a page whose only line covers all of it."""
    with Image.open(path) as image:
        width, height = ImageOps.exif_transpose(image).size
    corners = [(0.0, 0.0), (float(width), 0.0), (float(width), float(height)), (0.0, float(height))]
    whole = Line("line_1", "", corners, [], "region_1")
    return Page(path, path.name, width, height, [_line(whole, one) for one in lines])


def page_paths(sources: Sequence[Source], folder: Path) -> dict[Path, Path]:
    """Where the page of each source goes in a folder.

    Raises:
        InputError: a file exists already, or two sources have the same name.
    """
    paths: dict[Path, Path] = {}
    for source in sources:
        path = folder / f"{source.path.stem}.xml"
        if path.exists():
            raise InputError(f"{path}: exists already and is not overwritten; choose another --out")
        if path in paths.values():
            raise InputError(
                f"{path}: two files would be written there, one of them for {source.path}; transcribe them separately"
            )
        paths[source.path] = path
    return paths


def write_page(source: Source, lines: Sequence[TranscribedLine], path: Path) -> Path:
    """Write the page of a source.

    Raises:
        InputError: the file cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(to_page_xml(source, lines))
    return path
