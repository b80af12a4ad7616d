"""Read corrected lines from PAGE and ALTO files, and from tables such as those of `htr transcribe` and `htr serve`."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from htr_lightning.data.corrected import Correction
from htr_lightning.data.fault import Fault
from htr_lightning.data.files import FileIndex, read_utf8
from htr_lightning.data.page.xml import line_id, local, number, parse
from htr_lightning.data.reader.rows import Column, lines_in, read_rows
from htr_lightning.errors import InputError
from htr_lightning.reading.sources import Source, find_sources
from htr_lightning.reading.transcribe import open_lines

TABLES = (".jsonl", ".ndjson", ".tsv", ".csv")
NO_PAGE, NO_OUTLINE = "images without a PAGE or ALTO file", "lines whose outline cannot be used"
NO_TEXT = "lines without text"
UNCONFIRMED = "lines that nobody has confirmed (with a confidence below 1; --unconfirmed takes them)"


class _Row(NamedTuple):
    """A row of a table."""

    where: str  # file and number of the row, for errors
    path: Path  # image of a line, or PAGE or ALTO file
    line: str
    correction: dict[str, Any]


def read_corrections(
    names: Sequence[str], left_out: Counter[str], group: str | None = None, unconfirmed: bool = False
) -> Iterator[list[Correction]]:
    """Yield the corrected lines of each page, and of each file that a table names.

    Args:
        names: PAGE or ALTO files with their images, folders or patterns of them, or tables. Rows of a table name an
            image of a line in `file` (or `image`), or a PAGE or ALTO file there and the id of its line in `line`; a
            table without a header has the columns of `htr transcribe --format tsv`. In the JSON lines of the web page,
            `recognized` is what was corrected.
        left_out: counter of the lines that are left out, by the reason.
        group: writer of all lines; None for the name of each page or what the table says.
        unconfirmed: whether to include lines that no person has confirmed: those with a confidence below 1, as
            recognizers write, unless `confirmed` or `recognized` in a row of a table says that a person saw them; and
            those whose `confirmed` is false.

    Raises:
        InputError: if a file cannot be read, or a row does not name a line.
    """
    tables = [Path(name) for name in names if Path(name).suffix.lower() in TABLES]
    for source in _sources([name for name in names if Path(name) not in tables]):
        if not source.is_page:
            left_out[NO_PAGE] += 1
            continue
        if isinstance(source.image, str):
            raise InputError(source.image)
        machine = set() if unconfirmed else _unconfirmed(source.path)
        found = []
        for line, image in open_lines(source):
            if line.line is None:
                raise InputError(line.error or f"{source.path}: cannot be read; check the file")
            id, text = line.line[:2]
            why = NO_TEXT if not text.strip() else UNCONFIRMED if id in machine else NO_OUTLINE if image is None else ""
            if why or image is None:
                left_out[why] += 1
            else:
                found.append(Correction(image, text, source=source.path.name, line=id, group=group or ""))
        yield found
    for table in tables:
        by_file: defaultdict[Path, list[_Row]] = defaultdict(list)
        for row in _rows(table, unconfirmed, left_out):
            by_file[row.path].append(row)
        for path, rows in by_file.items():
            (source,) = _sources([str(path)])
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


def _sources(names: Sequence[str]) -> list[Source]:
    sources, errors, _ = find_sources(names)
    if errors:
        raise InputError(errors[0])
    return sources


def _unconfirmed(path: Path) -> set[str]:
    """Return the ids of the lines in a PAGE or ALTO file whose text has a confidence below 1, as recognizers write."""
    root = parse(path)
    found = set()
    key = "id" if local(root) == "PcGts" else "ID"
    for count, line in enumerate((element for element in root.iter() if local(element) == "TextLine"), start=1):
        stated = [e.get("conf", e.get("WC")) for e in line if local(e) in ("TextEquiv", "String")]
        if any(number(value, 1.0) < 1 for value in stated):
            found.add(line_id(line, key, count))
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
