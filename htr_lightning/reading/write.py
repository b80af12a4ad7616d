"""Write transcribed lines as they come: as rows, or as a file for each page. Does not import torch."""

import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from htr_lightning.data.page.written import About
from htr_lightning.errors import counted, printable
from htr_lightning.reading.page_out import NO_BOXES, SUFFIXES, has_page, page_file, write_page_file
from htr_lightning.reading.results import format_line, record
from htr_lightning.reading.review import Review
from htr_lightning.reading.script import is_unknown, page_confidence, warning
from htr_lightning.reading.segment import detect
from htr_lightning.reading.show import show
from htr_lightning.reading.sources import Source
from htr_lightning.reading.transcribe import TranscribedLine, transcribe
from htr_lightning.transcription import Transcriber

NOTHING: Mapping[Path, Path] = MappingProxyType({})


class Output(NamedTuple):
    """What is written of each file, and where."""

    form: str
    about: About = About()  # what pages say about their texts
    n_best: int = 0
    confidences: bool = False
    pages: bool | None = None  # see `transcribe`
    targets: Mapping[Path, Path] = NOTHING  # files of pages; the others go to `write`
    pictures: Mapping[Path, Path] = NOTHING  # pictures of the lines of pages
    packed: bool = False  # whether the files of pages are put into an archive, so that nobody looks for them


class UntilInterrupted:
    """Sources until Ctrl-C, so that what was begun is finished and written; a second Ctrl-C ends the program at once.

    Args:
        sources: all sources.
        tell: function called with a message at the first Ctrl-C.
    """

    def __init__(self, sources: Sequence[Source], tell: Callable[[str], None]) -> None:
        self._sources, self._tell = sources, tell
        self.opened, self._stopped = 0, False
        self._former: Any = None

    @property
    def left(self) -> int:
        """The number of sources that were not opened."""
        return len(self._sources) - self.opened if self._stopped else 0

    def __enter__(self) -> "UntilInterrupted":
        self._former = signal.getsignal(signal.SIGINT)
        if self._former != signal.SIG_IGN:  # as in the background of a script, which Ctrl-C is not meant for
            signal.signal(signal.SIGINT, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._former)

    def __iter__(self) -> Iterator[Source]:
        for source in self._sources:
            if self._stopped:
                return
            self.opened += 1
            yield source

    def _stop(self, *_: object) -> None:
        self._stopped = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._tell("stopping after the lines that were begun; press Ctrl-C again to stop at once, without them")


def note(text: str) -> None:
    """Print a note to stderr."""
    print(f"note: {printable(text)}", file=sys.stderr)


def write_all(
    recognizer: Transcriber,
    sources: Sequence[Source] | UntilInterrupted,
    output: Output,
    errors: list[str],
    write: Callable[[str], object],
    advance: Callable[[int], None] = lambda files: None,
    review: Review | None = None,
) -> int:
    """Transcribe sources, write their lines or pages, print notes, and add what could not be read to `errors`.

    Returns the number of sources of which nothing could be read.

    Args:
        recognizer: recognizer in eval mode.
        sources: files to transcribe.
        output: what to write.
        errors: list that grows.
        write: function that receives rows, and pages without a target.
        advance: see `transcribe`.
        review: collects the lines that a person should look at.
    """
    form, by_page = output.form, output.form in SUFFIXES
    if by_page and not recognizer.aligns:
        note(NO_BOXES)
    transcribed = transcribe(recognizer, sources, output.n_best, advance, boxes=by_page, pages=output.pages)
    warned = detect.detector() is not None
    without_picture: list[Path] = []
    single: list[TranscribedLine] = []  # images of one line, too small to be judged alone
    name, failed = output.about.model, 0
    for source, group in groupby(transcribed, key=lambda line: line.source):
        lines = list(group)
        if not warned and lines[0].page is not None:
            note(detect.NO_DETECTOR)
            warned = True
        if source.path in output.pictures and not show(lines, output.pictures[source.path]):
            without_picture.append(source.path)
        errors += (faults := [line.error for line in lines if line.error])
        failed += len(faults) == len(lines)
        if review is not None:
            for line in lines:
                review.add(record(line, confidences=True))
        for text in dict.fromkeys(line.note for line in lines if line.note):
            note(text)
        confidence = page_confidence(line.transcription for line in lines)
        if unknown := lines[0].line is not None and is_unknown(recognizer, confidence):
            note(warning(recognizer, name, str(source.path), confidence or 0.0))
        if lines[0].line is None:
            single.append(lines[0])
        if not by_page:
            rows = [format_line(line, form, output.confidences, unknown) for line in lines if line.transcription]
            write("".join(f"{row}\n" for row in rows))
        elif not has_page(lines, form):
            continue
        elif source.path not in output.targets:
            write(page_file(source, lines, form, output.about).decode())
        else:
            path = write_page_file(source, lines, output.targets[source.path], form, output.about)
            if not output.packed:
                print(printable(str(path)))
    if without_picture:
        more = f", the first of {len(without_picture)}" if len(without_picture) > 1 else ""
        note(f"{without_picture[0]}: no picture, since it is read as one line or has none{more}; --pages finds lines")
    confidence = page_confidence(line.transcription for line in single)
    if is_unknown(recognizer, confidence):
        more = f" and {counted(len(single) - 1, 'other line image')}" if len(single) > 1 else ""
        note(warning(recognizer, name, f"{single[0].name}{more}", confidence or 0.0))
    return failed
