"""Read the rows of text tables, and suggest the settings for a table that does not have the expected columns."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any, TypeGuard

from htr_lightning.data.fault import Fault
from htr_lightning.data.files import read_utf8
from htr_lightning.errors import InputError

DELIMITERS = {"comma": ",", "tab": "\t", "semicolon": ";", "pipe": "|"}
BY_ENDING = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": "\t"}
LISTING = "data.reader.listing"
Column = str | int
Row = dict[Column, Any]


def lines_in(text: str) -> Iterator[tuple[int, str]]:
    """Yield the number and content of each line. Lines end with LF, CR or both, but not with other separators."""
    for number, line in enumerate(StringIO(text, newline=""), start=1):
        yield number, line.rstrip("\r\n")


def read_rows(
    path: Path, columns: Mapping[str, Column], delimiter: str | None, is_image: Callable[[str], bool]
) -> Iterator[tuple[int, Row | Fault]]:
    """Yield the line number of each row with its cells, or with a fault if the row is invalid.

    Rows without content are ignored.

    Args:
        path: a .jsonl or .ndjson file with an object in each row, or a delimited table.
        columns: requested columns by option, "image", "text" and so on. If all are numbers, the table has no header.
        delimiter: a key of `DELIMITERS` or a character; None chooses it by the ending of the file.
        is_image: function that returns whether a cell is the name of an existing image, for suggestions in errors.

    Raises:
        InputError: if the table cannot be read, or lacks a requested column.
    """
    if path.is_dir():
        raise InputError(f"{path}: a folder, not a table; name a table in data.reader.splits, or use data=folder")
    content = read_utf8(path)
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        for number, line in lines_in(content):
            if line.strip():
                yield number, _object(line)
        return
    character = BY_ENDING.get(path.suffix.lower()) if delimiter is None else DELIMITERS.get(delimiter, delimiter)
    if character is None or len(character) != 1 or character in '\r\n"':
        known = f"{', '.join(DELIMITERS)} or another single character"
        if delimiter is not None:
            raise InputError(f"{LISTING}.delimiter={delimiter}: expected {known}")
        raise InputError(
            f"{path}: unsupported table format; use .csv, .tsv or .jsonl, or set {LISTING}.delimiter to {known}"
        )
    header: list[Any] | None = None
    for number, row in _cells(content, character):
        if header is None:
            if isinstance(row, Fault):
                raise InputError(f"{path}:{number}: {row.kind} ({row.detail}); correct the quotes in this row")
            header = list(range(len(row))) if numbered(columns) else [cell.strip() for cell in row]
            for option, column in columns.items():
                if (count := header.count(column)) != 1:
                    found = f"{count} columns" if count else "no column"
                    available = ", ".join(map(str, header))[:200]
                    remedy = _remedy(content, columns, option, character, is_image)
                    raise InputError(f"{path}: {found} '{column}' (available: {available}); {remedy}")
            if not numbered(columns):
                continue
        if isinstance(row, Fault):
            yield number, row
        elif len(row) == len(header):
            yield number, dict(zip(header, row, strict=True))
        else:
            yield number, Fault("", "wrong number of cells", f"expected {len(header)}, got {len(row)}")


def numbered(columns: Mapping[str, Column]) -> TypeGuard[Mapping[str, int]]:
    """Return whether columns are given by number, which means that the table has no header."""
    return all(isinstance(column, int) for column in columns.values())


def _cells(content: str, delimiter: str) -> Iterator[tuple[int, list[str] | Fault]]:
    """Yield the number of the first line and the cells of each row that has any content."""
    rows = csv.reader(
        StringIO(content, newline=""),
        delimiter=delimiter,
        # Tab-separated tables have no quoting.
        quoting=csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL,
        strict=True,
    )
    while True:
        number = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            last = f", lines {number} to {rows.line_num}" if rows.line_num > number else ""
            yield number, Fault("", "row cannot be parsed", f"{error}{last}")
        else:
            if any(cell.strip() for cell in row):
                yield number, row


def _remedy(
    content: str, columns: Mapping[str, Column], option: str, delimiter: str, is_image: Callable[[str], bool]
) -> str:
    """Return the settings with which a table has the requested columns, judging by its first rows."""
    others = {name: _beginning(content, other) for name, other in DELIMITERS.items() if other != delimiter}
    for name, rows in others.items():
        if numbered(columns):
            fits = any(max(columns.values()) < len(row) and is_image(row[columns["image"]]) for row in rows)
        else:
            fits = any({cell.strip() for cell in row}.issuperset(columns.values()) for row in rows[:1])
        if fits:
            return f"if a {name} separates the columns, set {LISTING}.delimiter={name}"
    first = next((line for _, line in lines_in(content) if line.strip()), "")
    for character in dict.fromkeys(first if not numbered(columns) else ""):
        if not character.isalnum() and {cell.strip() for cell in first.split(character)}.issuperset(columns.values()):
            return f"if '{character}' separates the columns, set '{LISTING}.delimiter=\"{character}\"'"
    for name, rows in {"": _beginning(content, delimiter), **others}.items():
        row = rows[0] if rows else []
        image = next((place for place, cell in enumerate(row) if is_image(cell)), None)
        if image is not None and len(row) > 1:
            text = max((place for place in range(len(row)) if place != image), key=lambda place: len(row[place]))
            more = f" {LISTING}.delimiter={name}" if name else ""
            return f"if row 1 is not a header, set {LISTING}.image={image} {LISTING}.text={text}{more}"
    words = content.split(maxsplit=1)
    if len(words) > 1 and is_image(words[0]):
        return f"if spaces separate the image and the text, use data=pylaia {LISTING}.space=null"
    return f"set {LISTING}.{option} to the name of the column, or to its number from 0 if there is no header"


def _beginning(content: str, delimiter: str) -> list[list[str]]:
    return [row for _, row in islice(_cells(content, delimiter), 2) if isinstance(row, list)]


def _object(line: str) -> Row | Fault:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return Fault("", "row is not valid JSON")
    return row if isinstance(row, dict) else Fault("", "row is not a JSON object")
