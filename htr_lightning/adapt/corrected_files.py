"""Read corrected lines from PAGE and ALTO files, also as editors export them, and from tables such as our own."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from htr_lightning.adapt.exported import Exported, confidences, same_text, sources_of, unpacked
from htr_lightning.data.corrected import Correction
from htr_lightning.data.fault import Fault
from htr_lightning.data.files import FileIndex, read_utf8
from htr_lightning.data.page.document import read_page
from htr_lightning.data.reader.rows import Column, lines_in, read_rows
from htr_lightning.errors import InputError
from htr_lightning.reading.sources import Source
from htr_lightning.reading.transcribe import open_lines

TABLES = (".jsonl", ".ndjson", ".tsv", ".csv")
NO_PAGE, NO_OUTLINE = "images without a PAGE or ALTO file", "lines whose outline cannot be used"
NO_TEXT = "lines without text"
UNCONFIRMED = "lines that nobody has confirmed (with a confidence below 1; --unconfirmed takes them)"
UNCHANGED = "lines that are as they were exported (--unconfirmed takes them)"
NOT_EXPORTED = "lines of pages that were not exported"
NO_SUCH_LINE = "lines that were not exported with their page (--unconfirmed takes them)"


class _Row(NamedTuple):
    """A row of a table."""

    where: str  # file and number of the row, for errors
    path: Path  # image of a line, or PAGE or ALTO file
    line: str
    correction: dict[str, Any]


def read_corrections(
    names: Sequence[str],
    left_out: Counter[str],
    group: str | None = None,
    unconfirmed: bool = False,
    exported: str | None = None,
) -> Iterator[list[Correction]]:
    """Yield the corrected lines of each page, and of each file that a table names.

    Args:
        names: PAGE or ALTO files with their images, folders, patterns or zip archives of them, or tables. Rows of a
            table name an image of a line in `file` (or `image`), or a PAGE or ALTO file there and the id of its line in
            `line`; a table without a header has the columns of `htr transcribe --format tsv`. In the JSON lines of the
            web page, `recognized` is what was corrected.
        left_out: counter of the lines that are left out, by the reason.
        group: writer of all lines; None for the name of each page or what the table says.
        unconfirmed: whether to include lines that no person has confirmed: those with a confidence below 1, as
            recognizers write, unless `confirmed` or `recognized` in a row of a table says that a person saw them; and
            those whose `confirmed` is false.
        exported: archive, folder or file that was given to an editor; then those lines of pages are included whose
            text is not the exported one, or whose confidence has become 1; with `unconfirmed`, also the others and
            lines that were drawn since.

    Raises:
        InputError: if a file cannot be read, a row does not name a line, or there is a table beside `exported`.
    """
    tables = [Path(name) for name in names if Path(name).suffix.lower() in TABLES]
    pages = [name for name in names if Path(name) not in tables]
    if tables and exported is not None:
        raise InputError(f"{tables[0]}: tables are not compared with what was exported; add it without --exported")
    with unpacked([*pages, *([] if exported is None else [exported])]) as folders:
        known = None if exported is None else Exported(folders[len(pages) :])
        for source in sources_of(folders[: len(pages)]):
            if source.is_page:
                yield _of_page(source, known, left_out, group or "", unconfirmed)
            else:
                left_out[NO_PAGE] += 1
    for table in tables:
        by_file: defaultdict[Path, list[_Row]] = defaultdict(list)
        for row in _rows(table, unconfirmed, left_out):
            by_file[row.path].append(row)
        for path, rows in by_file.items():
            (source,) = sources_of([str(path)])
            lines = open_lines(source, pages=False)
            opened = {line.line.id if line.line else "": (line.error, image) for line, image in lines}
            missing = f"is not in {path}; use the ids that it has"
            if not source.is_page:  # which lines a recognizer found there is not known any more
                missing = f"cannot be found in {path}; export the page as PAGE XML, and correct its text there"
            found = []
            for row in rows:
                error, image = opened.get(row.line, (f"line {row.line!r} {missing}", None))
                if image is None:
                    raise InputError(f"{row.where}: {error}")
                given = row.correction | ({"group": group} if group else {})
                found.append(Correction(image, source=path.name, line=row.line, **given))
            yield found


def _of_page(
    source: Source, exported: Exported | None, left_out: Counter[str], group: str, unconfirmed: bool
) -> list[Correction]:
    """Return the corrected lines of a page, and count those that are left out."""
    known = None
    if exported is not None:
        page = read_page(source.path)
        known = exported.find(source.path, page)
        if known is None:
            left_out[NOT_EXPORTED] += len(page.lines)
            return []
    if isinstance(source.image, str) and known is not None:  # editors may export pages without their images
        source = source._replace(image=known.image)
    if isinstance(source.image, str):
        remedy = "" if exported else ", or name what the editor was given with --exported"
        raise InputError(f"{source.image}{remedy}")
    stated = confidences(source.path)
    found = []
    for line, image in open_lines(source):
        if line.line is None:
            raise InputError(line.error or f"{source.path}: cannot be read; check the file")
        id, text = line.line[:2]
        before = known.lines.get(id) if known else None
        is_machine = stated.get(id, 1.0) < 1 and not unconfirmed
        if known is not None and before is None and not unconfirmed:
            why = NO_SUCH_LINE
        elif not text.strip():
            why = NO_TEXT
        elif before is not None and same_text(text, before.text) and not unconfirmed:
            was_machine = before.confidence is not None and before.confidence < 1
            why = "" if stated.get(id) == 1 and was_machine else UNCHANGED
        else:
            why = UNCONFIRMED if before is None and is_machine else ""
        if why or image is None:
            left_out[why or NO_OUTLINE] += 1
        else:
            read, confidence = before or (None, None)
            found.append(Correction(image, text, read, confidence, source.path.name, id, group))
    return found


def _rows(table: Path, unconfirmed: bool, left_out: Counter[str]) -> Iterator[_Row]:
    """Yield the rows of a table, and count those that are left out."""
    index = FileIndex()
    columns: dict[str, Column] = {"file": "file", "text": "text"}
    if table.suffix.lower() not in (".jsonl", ".ndjson"):
        head = next((line for _, line in lines_in(read_utf8(table)) if line.strip()), "")
        names = [cell.strip() for cell in head.split("\t" if table.suffix.lower() == ".tsv" else ",")]
        columns = {"file": "image" if "image" in names else "file", "text": "text"} if "text" in names else {
            "file": 0, "text": 1}  # fmt: skip
    for place, row in read_rows(table, columns, None, lambda cell: Path(cell).suffix != ""):
        where = f"{table}:{place}"
        if isinstance(row, Fault):
            raise InputError(f"{where}: {row.kind}{f' ({row.detail})' if row.detail else ''}; correct this row")
        name = row.get(columns["file"]) or row.get("image")
        text, before = row.get(columns["text"], ""), row.get("recognized", row.get("before"))
        line, group = (row.get(key) or "" for key in ("line", "group"))
        texts = {"file": name, "line": line, "group": group}
        if bad := next((key for key, value in texts.items() if not isinstance(value, str)), None):
            raise InputError(f"{where}: {bad}={str(texts[bad])[:40]} is not text; correct this row")
        if not (isinstance(text, str | None) and isinstance(before, str | None) and name):
            raise InputError(f"{where}: expected a file and a text, got {str(row)[:80]}; correct this row")
        confidence = row.get("confidence", row.get(2))
        try:
            confidence = None if confidence in (None, "") else float(confidence)
        except (TypeError, ValueError):
            raise InputError(f"{where}: confidence={str(confidence)[:40]} is not a number; correct this row") from None
        confirmed = row.get("confirmed")
        if confirmed in (None, ""):  # the row may be as a recognizer wrote it
            confirmed = confidence is None or confidence >= 1
        if confirmed is False and before is None and not unconfirmed:
            left_out[UNCONFIRMED] += 1
            continue
        if text is not None and not text.strip():
            left_out[NO_TEXT] += 1
            continue
        path = _find(index, table, name)
        if path is None and not line and "#" in name:  # as `htr transcribe` names the lines of pages
            name, _, line = name.rpartition("#")
            path = _find(index, table, name)
        if path is None:
            raise InputError(f"{where}: {name}: not found beside the table or in this folder; correct the name")
        before = text if before is None and row.get("confirmed") else before
        yield _Row(where, path, line, {"text": text, "before": before, "confidence": confidence, "group": group})


def _find(index: FileIndex, table: Path, name: str) -> Path | None:
    """Return the file that a table names, beside it or in the working directory."""
    if Path(name).is_absolute():
        return Path(name) if Path(name).is_file() else None
    return index.find(table.parent, name) or (Path(name) if Path(name).is_file() else None)
