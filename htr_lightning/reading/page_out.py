"""Write transcriptions to PAGE files, which common editors can open for correction."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps

from htr_lightning.data.page import pagexml
from htr_lightning.data.page.document import read_page
from htr_lightning.data.page.page import Line, Page
from htr_lightning.data.page.xml import local, parse
from htr_lightning.errors import InputError
from htr_lightning.output import replacing
from htr_lightning.reading.sources import Source
from htr_lightning.reading.transcribe import TranscribedLine


def to_page_xml(source: Source, lines: Sequence[TranscribedLine]) -> bytes:
    """Return a PAGE file with the transcriptions of a source; lines that could not be transcribed keep their text.

    All other content of an existing PAGE file is preserved. An ALTO file or a single image results in a new PAGE file.
    """
    if not source.is_page:
        return pagexml.write(_page_of_image(source.path, lines))
    found = [_line(one.line, one) for one in lines if one.line is not None]
    if local(parse(source.path)) == "PcGts":
        return pagexml.replace_texts(source.path, [line for line in found if line.confidence is not None])
    return pagexml.write(read_page(source.path)._replace(lines=found))


def _line(line: Line, transcribed: TranscribedLine) -> Line:
    read = transcribed.transcription
    return line if read is None else line._replace(text=read.text, confidence=read.confidence)


def _page_of_image(path: Path, lines: Sequence[TranscribedLine]) -> Page:
    """Return the page on which lines were found, or one that the line in an image covers."""
    if (page := lines[0].page) is not None:
        return page._replace(lines=[_line(one.line, one) for one in lines if one.line is not None])
    with Image.open(path) as image:
        width, height = ImageOps.exif_transpose(image).size
    corners = [(0.0, 0.0), (float(width), 0.0), (float(width), float(height)), (0.0, float(height))]
    whole = Line("line_1", "", corners, [], "region_1")
    return Page(path, path.name, width, height, [_line(whole, one) for one in lines if not one.is_empty_page])


def page_path(source: Source, folder: Path) -> Path:
    """Return the output path of a source in a folder."""
    return folder / f"{source.path.stem}.xml"


def page_paths(sources: Sequence[Source], folder: Path, skip_existing: bool = False) -> dict[Path, Path]:
    """Return the output path of each source in a folder; those that exist are skipped if they may be.

    Raises:
        InputError: if an output file already exists, or two sources have the same output path.
    """
    paths: dict[Path, Path] = {}
    seen: set[Path] = set()
    for source in sources:
        path = page_path(source, folder)
        if path in seen:
            raise InputError(
                f"{path}: {source.path} and another file have the same output path; transcribe them separately"
            )
        seen.add(path)
        if not path.exists():
            paths[source.path] = path
        elif not skip_existing:
            raise InputError(f"{path}: file already exists; choose another --out, or add --skip-existing to keep it")
    return paths


def write_page(source: Source, lines: Sequence[TranscribedLine], path: Path) -> Path:
    """Write the PAGE file of a source and return its path.

    Raises:
        InputError: if the file cannot be written.
    """
    with replacing(path) as beside:
        beside.write_bytes(to_page_xml(source, lines))
    return path
