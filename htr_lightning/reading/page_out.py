"""Write transcribed pages as PAGE or ALTO, for correction in common editors, as hOCR or as searchable PDF."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from htr_lightning.data.image import image_size
from htr_lightning.data.page import write_alto, write_hocr, write_page, write_pdf
from htr_lightning.data.page.document import read_page
from htr_lightning.data.page.page import Line, Page, box_corners
from htr_lightning.data.page.written import About
from htr_lightning.data.page.xml import local, parse
from htr_lightning.errors import InputError
from htr_lightning.output import replacing
from htr_lightning.reading.sources import Source
from htr_lightning.reading.transcribe import TranscribedLine
from htr_lightning.reading.words import words_of

SUFFIXES = {"page": ".xml", "alto": ".xml", "hocr": ".hocr", "pdf": ".pdf"}  # of formats with a file for each page
WRITERS = {"PcGts": write_page, "alto": write_alto}  # by root element
ROOTS = {"page": "PcGts", "alto": "alto"}
GLYPHS = ("page", "alto", "hocr")  # formats with the box and the confidence of each character
LANGUAGE = re.compile("[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")  # of XML Schema
NO_BOXES = "lines are written without the boxes of their words, since only CTC recognizers know where characters lie"


def check_about(
    recognizers: Sequence[str], form: str, language: str = "", glyphs: bool = False, option: str = "--language "
) -> About:
    """Return what files say about the texts of recognizers.

    Args:
        recognizers: names of the recognizers.
        form: format of the files.
        language: code of the language to state, or "".
        glyphs: whether to write the characters.
        option: what errors put before the language, such as the name of the caller's field.

    Raises:
        InputError: if the language is not a code, or the format states no language or no characters.
    """
    if language and not LANGUAGE.fullmatch(language):
        raise InputError(f"{option}{language}: expected a code of a language, such as fr or zh-Hans")
    if language and form not in SUFFIXES:
        raise InputError(f"{option}{language}: not written with --format {form}; use page, alto, hocr or pdf")
    if glyphs and form not in GLYPHS:
        raise InputError(f"--glyphs: not written with --format {form}; use page, alto or hocr")
    return About(", ".join(Path(name).name for name in recognizers), language, glyphs)


def page_file(source: Source, lines: Sequence[TranscribedLine], form: str, about: About = About()) -> bytes:  # noqa: B008
    """Return a page with the transcriptions of a source; lines that could not be transcribed keep their text.

    If the source is a file of the same format, all its other content is preserved.

    Args:
        source: page, or image of one line.
        lines: all of its lines, in order.
        form: "page", "alto", "hocr" or "pdf".
        about: what is said about the texts.

    Raises:
        InputError: if the image is needed and cannot be read.
    """
    found = [_line(one) for one in lines if one.line is not None]
    if source.is_page and form in ROOTS and local(parse(source.path)) == ROOTS[form]:
        return WRITERS[ROOTS[form]].edit_page(source.path, found, about)
    page = read_page(source.path)._replace(lines=found) if source.is_page else _page_of_image(source.path, lines)
    if form in ROOTS:
        return WRITERS[ROOTS[form]].new_page(page, about)
    if form == "hocr":
        return write_hocr.new_page(page, about)
    if isinstance(source.image, str):
        raise InputError(source.image)
    return write_pdf.new_page(page, source.image, about)


def _line(transcribed: TranscribedLine, line: Line | None = None) -> Line:
    line, read = line or transcribed.line, transcribed.transcription
    assert line is not None
    if read is None:
        return line
    placement = np.eye(3) if transcribed.to_page is None else transcribed.to_page
    words = words_of(read.boxes, placement, line.polygon, read.words)
    return line._replace(text=read.text, confidence=read.confidence, words=words)


def _page_of_image(path: Path, lines: Sequence[TranscribedLine]) -> Page:
    """Return the page on which lines were found, or one that the line in an image covers."""
    if (page := lines[0].page) is not None:
        return page._replace(lines=[_line(one) for one in lines if one.line is not None])
    height, width = image_size(path)
    whole = Line("line_1", "", box_corners(0.0, 0.0, float(width), float(height)), [], "region_1")
    return Page(path, path.name, width, height, [_line(one, whole) for one in lines if not one.is_empty_page])


def has_page(lines: Sequence[TranscribedLine], form: str) -> bool:
    """Return whether a page can be written: its file can be read and, for a PDF, so can its image.

    Args:
        lines: all lines of a source; those that could not be read have errors.
        form: format.
    """
    if form == "pdf":
        return not all(line.error for line in lines)
    return lines[0].line is not None or not lines[0].error


def page_path(source: Source, folder: Path, form: str) -> Path:
    """Return the output path of a source in a folder."""
    return folder / f"{source.path.stem}{SUFFIXES[form]}"


def page_paths(sources: Sequence[Source], folder: Path, form: str, skip_existing: bool = False) -> dict[Path, Path]:
    """Return the output path of each source in a folder; those that exist are skipped if they may be.

    Raises:
        InputError: if an output file already exists, or two sources have the same output path.
    """
    paths: dict[Path, Path] = {}
    seen: set[Path] = set()
    for source in sources:
        path = page_path(source, folder, form)
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


def write_page_file(
    source: Source,
    lines: Sequence[TranscribedLine],
    path: Path,
    form: str,
    about: About = About(),  # noqa: B008
) -> Path:
    """Write the page of a source (see `page_file`) and return its path.

    Raises:
        InputError: if the file cannot be written.
    """
    with replacing(path) as beside:
        beside.write_bytes(page_file(source, lines, form, about))
    return path
