"""Files of transcribed lines: text, tab-separated values and JSON lines. They grow, and go on where they stopped."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from htr_lightning.errors import InputError, printable
from htr_lightning.output import writing
from htr_lightning.reading.sources import Source
from htr_lightning.reading.transcribe import TranscribedLine

JSONL = ("file", "line", "text", "confidence", "alternatives", "words", "characters")


def format_line(line: TranscribedLine, form: str, confidences: bool = False, unknown_script: bool = False) -> str:
    """Return a transcribed line as a row of "text", "tsv" or "jsonl", without a line break.

    Args:
        line: line that could be read.
        form: format.
        confidences: whether "jsonl" contains the confidences of words and characters.
        unknown_script: whether its page may be in a script that cannot be read (see `is_unknown`), recorded in "jsonl".
    """
    assert line.transcription is not None
    text, confidence, *_ = line.transcription
    if form == "tsv":
        return "\t".join(map(printable, (line.name, text, f"{confidence:.4f}")))
    if form == "text":
        return printable(text)
    plain = record(line, confidences)
    kept = {key: plain[key] for key in JSONL if key in plain} | ({"unknown_script": True} if unknown_script else {})
    return printable(json.dumps(kept, ensure_ascii=False))


def record(line: TranscribedLine, confidences: bool = False) -> dict[str, Any]:
    """Return a line as plain data; `text` and `confidence` are None if the line could not be read, for the `error`.

    With `confidences`, `words` has the text and confidence of each word, and `characters` the confidence of each
    character of the text.
    """
    read = line.transcription
    plain: dict[str, Any] = {
        "id": line.name,
        "file": str(line.source.path),
        "line": line.line.id if line.line else None,
        "region": (line.line.region or None) if line.line else None,
        "text": read.text if read else None,
        "confidence": round(read.confidence, 4) if read else None,
        "error": line.error,
    }
    if read and read.alternatives:
        plain["alternatives"] = [
            {"text": one.text, "confidence": round(one.confidence, 4), "score": round(one.score, 4)}
            for one in read.alternatives
        ]
    if confidences:
        texts, scores, characters = (read.text.split(), read.words, read.characters) if read else ([], (), ())
        plain["words"] = [
            {"text": text, "confidence": round(score, 4)} for text, score in zip(texts, scores, strict=True)
        ]
        plain["characters"] = [round(score, 4) for score in characters]
    return plain


def part_of(path: Path) -> Path:
    """Return the path of a file while it grows."""
    return path.with_name(f"{path.name}.part")


def resume(path: Path, form: str, sources: Sequence[Source]) -> list[Source]:
    """Cut a growing file off after the last source that was certainly written whole; return the remaining sources.

    Args:
        path: final path; if it exists and nothing was left by an interrupted run, the file itself goes on.
        form: "tsv" or "jsonl".
        sources: sources in the order in which they are transcribed.
    """
    part = part_of(path)
    if not part.exists():
        if not path.exists():
            return list(sources)
        shutil.copyfile(path, part)
    known = {printable(str(source.path)) for source in sources}
    done: list[str] = []
    end = start = 0
    with writing(path), part.open("r+b") as file:
        for row in file:
            if not row.endswith(b"\n"):
                break
            name = _file_name(row.decode(errors="replace"), form, known, part)
            if not done or name != done[-1]:
                done.append(name)
                start = end
            end += len(row)
        file.truncate(start)  # the last page may have had more lines
    finished = set(done[:-1])
    return [source for source in sources if printable(str(source.path)) not in finished]


def _file_name(row: str, form: str, known: Iterable[str], part: Path) -> str:
    """Return the printable name of the file that a row belongs to."""
    if form == "jsonl":
        try:
            return printable(json.loads(row)["file"])
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{part}: contains a row that htr transcribe did not write; remove the file") from None
    name = row.split("\t")[0]
    while name not in known and "#" in name:
        name = name.rpartition("#")[0]  # file names and line ids can contain # as well
    return name


@contextmanager
def growing(path: Path) -> Iterator[Callable[[str], object]]:
    """Open a file that grows beside a path and gets its name at the end; yield a function that writes to it.

    Whatever was written is still there after the process is killed; see `resume`.

    Raises:
        InputError: if the file cannot be written.
    """
    part = part_of(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("a", encoding="utf-8") as file:

            def write(text: str) -> None:
                file.write(text)
                file.flush()

            yield write
            os.fsync(file.fileno())
        part.replace(path)
