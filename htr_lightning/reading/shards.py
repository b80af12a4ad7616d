"""Transcribe millions of lines in parts, each of which is written to a file of its own, whole or not at all.

The parts and their numbers depend only on the files to transcribe, so that any number of processes and machines can
share them, and a part is transcribed again only if its process stops before the end. Does not import torch.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

from htr_lightning.data.page.document import read_page
from htr_lightning.data.page.written import About
from htr_lightning.errors import InputError, printable
from htr_lightning.output import replacing, writing
from htr_lightning.reading.journal import digest
from htr_lightning.reading.open import load_all
from htr_lightning.reading.page_out import ROOTS, SUFFIXES, has_page, page_path, page_paths, write_page_file
from htr_lightning.reading.results import record
from htr_lightning.reading.sources import Source
from htr_lightning.reading.transcribe import TranscribedLine, count_lines, transcribe
from htr_lightning.transcription import Transcriber

PLAN = "_plan.json"  # readers of Parquet folders skip names that begin with _
FILES = 1000  # maximum number of files in a part, which a stopped process has to read again
PARTS = 64  # minimum number of parts if there are enough files, so that a few machines are equally busy
ROWS = 1024  # number of lines that Parquet readers decode at a time


class Part(NamedTuple):
    """Neighbouring files that are transcribed together."""

    number: int  # from 1
    of: int
    sources: Sequence[Source]

    @property
    def name(self) -> str:
        """The name of its file, without suffix."""
        return f"part-{self.number:05}-of-{self.of:05}"


class Counts(NamedTuple):
    """What a part contains."""

    lines: int
    faults: int  # number of lines that could not be read
    first: str | None = None  # the first fault

    def plus(self, other: "Counts") -> "Counts":
        """Return the counts of two parts together."""
        return Counts(self.lines + other.lines, self.faults + other.faults, self.first or other.first)


class Job(NamedTuple):
    """How parts are transcribed, and where they are written; small enough to be sent to another machine."""

    folder: Path
    form: str  # "parquet", "jsonl" or one for pages (see `page_out.SUFFIXES`)
    checkpoints: Sequence[str]
    device: str = "auto"
    greedy: bool = False
    views: int = 1
    calibration: Sequence[float] | None = None
    weights: Sequence[float] | None = None
    n_best: int = 0
    confidences: bool = False  # whether rows contain those of words and characters
    about: About = About()  # what pages say about their texts
    pages: bool | None = None  # whether images without XML are pages; see `transcribe`

    @property
    def by_page(self) -> bool:
        """Whether each page is a file of its own."""
        return self.form in SUFFIXES

    def load(self) -> Transcriber:
        """Load the recognizer."""
        return load_all(self.checkpoints, self.device, self.greedy, self.views, self.calibration, self.weights)

    def path(self, part: Part) -> Path:
        """Return the path of the file of a part."""
        return self.folder / f"{part.name}.{self.form}"

    def is_done(self, part: Part) -> bool:
        """Return whether a part has been written."""
        if self.by_page:
            return all(page_path(source, self.folder, self.form).exists() for source in part.sources)
        return self.path(part).exists()

    def transcribe(self, recognizer: Transcriber, part: Part, parallel: bool = True) -> Counts:
        """Transcribe a part and write its file.

        Args:
            recognizer: what `load` returned.
            part: part to transcribe.
            parallel: whether to use all cores.

        Raises:
            InputError: if the file cannot be written.
        """
        if self.by_page:
            return self._pages(recognizer, part, parallel)
        lines = transcribe(recognizer, part.sources, self.n_best, parallel=parallel, pages=self.pages)
        rows = (record(line, self.confidences) for line in lines if not line.is_empty_page)
        with replacing(self.path(part)) as path:
            return _write_parquet(rows, path, self) if self.form == "parquet" else _write_jsonl(rows, path)

    def _lines_of(self, source: Source) -> int:
        """Return the number of lines of a page that has been written; hOCR and PDF files are not read again."""
        if self.form not in ROOTS:
            return count_lines(source)
        return len(read_page(page_path(source, self.folder, self.form)).lines)

    def _pages(self, recognizer: Transcriber, part: Part, parallel: bool) -> Counts:
        counts = Counts(0, 0)
        remaining = [source for source in part.sources if not page_path(source, self.folder, self.form).exists()]
        transcribed = transcribe(recognizer, remaining, parallel=parallel, boxes=True, pages=self.pages)
        for source, group in groupby(transcribed, key=lambda line: line.source):
            lines = list(group)
            if has_page(lines, self.form):
                path = page_path(source, self.folder, self.form)
                write_page_file(source, lines, path, self.form, self.about)
            counts = counts.plus(_count(lines))
        return counts

    def counts(self, part: Part) -> Counts:
        """Return the counts of a part that has been written.

        Raises:
            InputError: if its file is damaged.
        """
        path = self.path(part)
        try:
            if self.by_page:
                return Counts(sum(map(self._lines_of, part.sources)), 0)
            if self.form == "parquet":
                errors = _parquet(path).read_table(path, columns=["error"]).column("error").to_pylist()
            else:
                with path.open(encoding="utf-8") as file:
                    errors = [json.loads(row)["error"] for row in file]
        except (OSError, ValueError, KeyError):  # pyarrow's errors are ValueErrors
            raise InputError(f"{path}: cannot be read; remove it to transcribe this part again") from None
        found = [error for error in errors if error]
        return Counts(len(errors), len(found), next(iter(found), None))


def split(sources: Sequence[Source], parts: int | None = None) -> list[Part]:
    """Return the parts of files, each of which contains neighbouring files.

    Args:
        sources: files to transcribe, in order.
        parts: number of parts; None for parts of at most `FILES` files, and at least `PARTS` parts if there are enough.
    """
    count = min(parts or max(PARTS, -(-len(sources) // FILES)), len(sources))
    bounds = [len(sources) * number // count for number in range(count + 1)]
    return [Part(n + 1, count, sources[bounds[n] : bounds[n + 1]]) for n in range(count)]


def share(parts: Sequence[Part], shard: str | None) -> Sequence[Part]:
    """Return the parts that one of several machines transcribes.

    Args:
        parts: all parts.
        shard: "3/16" for the third of 16 machines, which transcribes every 16th part; None for all parts.

    Raises:
        InputError: if the shard is invalid.
    """
    if shard is None:
        return parts
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", shard)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise InputError(f"--shard {shard}: expected the number of this machine, from 1, and the number of machines, "
                         "e.g. 3/16; in a SLURM job array, use --array=1-16")  # fmt: skip
    return parts[int(found[1]) - 1 :: int(found[2])]


def prepare(
    job: Job, sources: Sequence[Source], parts: int | None, shard: str | None, skip_existing: bool
) -> Sequence[Part]:
    """Check the output folder, and return the parts of this machine, whether they are written already or not.

    Args:
        job: how the parts are transcribed.
        sources: all files to transcribe.
        parts: see `split`.
        shard: see `share`.
        skip_existing: whether some of the parts may have been written.

    Raises:
        InputError: if an argument is invalid, or the folder contains something else.
    """
    every = split(sources, parts)
    chosen = share(every, shard)
    if job.form == "parquet":
        _parquet(job.folder)
    _check_plan(job, sources, len(every))
    if job.by_page:
        page_paths(sources, job.folder, job.form, skip_existing=True)  # no two files may have the same page
        page_paths([source for part in chosen for source in part.sources], job.folder, job.form, skip_existing)
    done = sum(map(job.is_done, chosen))
    if done and not skip_existing:
        raise InputError(f"{job.folder}: contains {done} of {len(chosen)} parts; add --skip-existing to go on with the "
                         "others, or choose another --out")  # fmt: skip
    return chosen


def _check_plan(job: Job, sources: Sequence[Source], parts: int) -> None:
    """Write what the parts in a folder are made from, or compare it with what was written there.

    Every process that shares a folder must have found the same files and use the same recognizer and settings, as each
    line would otherwise not be transcribed exactly once.

    Raises:
        InputError: if a field differs, or the folder cannot be written to.
    """
    names = sha256()
    for source in sources:
        names.update(os.fsencode(source.path) + b"\0")
    plan: dict[str, Any] = {
        "files": len(sources),
        "file names": names.hexdigest(),
        "parts": parts,
        "format": job.form,
        "recognizer": list(job.checkpoints),
        "content of the recognizer": list(map(digest, job.checkpoints)),
        "greedy": job.greedy,
        "n-best": job.n_best,
        "confidences": job.confidences or None,  # plans of earlier versions have none
        "tta": job.views,
        "calibration": None if job.calibration is None else list(job.calibration),
        "weights": None if job.weights is None else list(job.weights),
        "language": job.about.language or None,
        "glyphs": job.about.glyphs or None,
        "pages": job.pages,
    }
    path = job.folder / PLAN
    with writing(path):
        job.folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        with replacing(path) as beside:
            beside.write_text(json.dumps(plan, indent=1, ensure_ascii=True) + "\n")
    try:
        before = json.loads(path.read_text())
    except (OSError, ValueError):
        raise InputError(f"{path}: cannot be read; choose another --out") from None
    for key, value in plan.items():
        if not isinstance(before, Mapping) or before.get(key) != value:
            shown = ("is different", "") if isinstance(value, str) and len(value) == 64 else (
                f"was {before.get(key)}", f", not {value}")  # fmt: skip
            raise InputError(f"{path}: {key} {shown[0]}{shown[1]}; repeat the command as it was, or choose another "
                             "--out")  # fmt: skip


def _count(lines: Iterable[TranscribedLine]) -> Counts:
    errors = [line.error for line in lines if not line.is_empty_page]
    faults = [error for error in errors if error]
    return Counts(len(errors), len(faults), next(iter(faults), None))


def _counted(rows: Iterable[dict[str, Any]], faults: list[str], lines: list[int]) -> Iterator[dict[str, Any]]:
    for row in rows:
        lines[0] += 1
        if row["error"]:
            faults.append(row["error"])
        yield row


def _write_jsonl(rows: Iterable[dict[str, Any]], path: Path) -> Counts:
    faults: list[str] = []
    lines = [0]
    with path.open("w", encoding="utf-8") as file:
        for row in _counted(rows, faults, lines):
            file.write(printable(json.dumps(row, ensure_ascii=False)) + "\n")
    return Counts(lines[0], len(faults), next(iter(faults), None))


def _write_parquet(rows: Iterable[dict[str, Any]], path: Path, job: Job) -> Counts:
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    columns = [("id", text), ("file", text), ("line", text), ("region", text), ("text", text), ("confidence", number)]
    columns += [("error", text)]
    if job.n_best:
        columns += [("alternatives", pa.list_(pa.struct([("text", text), ("confidence", number), ("score", number)])))]
    if job.confidences:
        columns += [("words", pa.list_(pa.struct([("text", text), ("confidence", number)]))),
                    ("characters", pa.list_(number))]  # fmt: skip
    schema = pa.schema(columns)
    faults: list[str] = []
    lines = [0]
    counted = _counted(rows, faults, lines)
    with _parquet(path).ParquetWriter(path, schema) as writer:
        while some := list(islice(counted, ROWS)):
            writer.write_table(pa.Table.from_pylist([_encodable(row) for row in some], schema))
    return Counts(lines[0], len(faults), next(iter(faults), None))


def _encodable(row: dict[str, Any]) -> dict[str, Any]:
    """Escape what UTF-8 cannot contain: lone surrogates, which stand for bytes of file names in another encoding."""
    return {
        key: value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
        for key, value in row.items()
    }


def _parquet(path: Path) -> Any:
    try:
        from pyarrow import parquet
    except ImportError:
        raise InputError(f"{path}: Parquet files need pyarrow; install it with pip install pyarrow, or use "
                         "--format jsonl") from None  # fmt: skip
    return parquet
