"""Where the text of an image file is: in a file beside it, a table, a PyLaia list, or the name of its folder."""

import csv
import json
import os
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from htr_lightning.data.fault import Fault, printable
from htr_lightning.data.image import SUFFIXES
from htr_lightning.data.reader.folder import Entry, exists
from htr_lightning.errors import InputError

SPELLINGS = {"train": ("train", "training"), "val": ("val", "valid", "validation", "dev"), "test": ("test", "testing")}
Found = tuple[list[Entry], list[Fault]]


class Pairs:
    """`x.png` with its text in `x.gt.txt`, as in kraken, Calamari and OCR-D.

    Args:
        images: suffixes of the images; if several images share a text, the one whose suffix comes first is used.
        text: suffix of the texts.
    """

    def __init__(self, images: Sequence[str], text: str = ".gt.txt") -> None:
        self.images, self.text = [ending.lower() for ending in images], text

    def __call__(self, root: Path, part: str, split: str) -> Found:
        """The pairs below a folder."""
        pictures, texts = {}, []
        longest_first = sorted(self.images, key=len, reverse=True)
        for path in files_below(root / part):
            name = path.relative_to(root).as_posix()
            if name.endswith(self.text):
                texts.append(path)
            elif ending := next((ending for ending in longest_first if name.lower().endswith(ending)), None):
                pictures[name[: -len(ending)] + ending] = path
        entries, faults = [], []
        for path in texts:
            stem = path.relative_to(root).as_posix()[: -len(self.text)]
            same = [found for ending in self.images if (found := pictures.pop(stem + ending, None))]
            try:
                text = read_utf8(path).strip("\r\n")
            except InputError as error:
                faults.append(Fault(str(path), "text that cannot be read", str(error).partition(": ")[2]))
                continue
            if not same:
                faults.append(Fault(str(path), "text without image", f"none of {', '.join(self.images)}"))
            elif "\n" in text:
                faults.append(Fault(str(path), "text of several lines", f"{text.count(chr(10)) + 1} lines"))
            else:
                entries.append(Entry(stem, same[0], text))
        faults += [Fault(str(path), f"image without {self.text}") for path in pictures.values()]
        return entries, faults


class Images:
    """Images without texts, to be labelled."""

    def __call__(self, root: Path, part: str, split: str) -> Found:
        """The images below a folder."""
        paths = [path for path in files_below(root / part) if path.suffix.lower() in SUFFIXES]
        return [Entry(path.relative_to(root).as_posix(), path, "") for path in paths], []


class Table:
    """A CSV, TSV or JSON Lines file with a row for each image.

    Args:
        image: column of the names of the images, below `images` or beside the table; a number counts the columns of a
            table without header, from 0.
        text: column of the texts, likewise.
        group: column of the writer or document; None: `data.reader.group` finds it in the name of the image.
        split: column of the split of each row; None: the table holds one part only.
        images: folder of the images below the root.
        delimiter: between cells; None: by the suffix of the file, a comma for .csv and a tab for .tsv and .txt.
    """

    def __init__(
        self,
        image: str | int,
        text: str | int,
        group: str | int | None = None,
        split: str | int | None = None,
        images: str = ".",
        delimiter: str | None = None,
    ) -> None:
        self.image, self.text, self.group, self.split = image, text, group, split
        self.images, self.delimiter = images, delimiter

    def __call__(self, root: Path, part: str, split: str) -> Found:
        """The rows of a table."""
        table = root / part
        columns = [column for column in (self.image, self.text, self.group, self.split) if column is not None]
        entries: list[Entry] = []
        faults: list[Fault] = []
        for number, row in read_rows(table, columns, self.delimiter):
            where = f"{table}:{number}"
            if isinstance(row, str):
                faults.append(Fault(where, row))
                continue
            values = {column: row.get(column) for column in columns}
            if bad := next((c for c in columns if values[c] is not None and not isinstance(values[c], str)), None):
                faults.append(Fault(where, "cell that is not text", f"{bad}={str(values[bad])[:40]}"))
                continue
            if self.split is not None:
                stated = next((s for s, spelt in SPELLINGS.items() if str(values[self.split]).lower() in spelt), None)
                if stated is None:
                    faults.append(Fault(where, "row of an unknown split", f"{self.split}={values[self.split]}"))
                if stated != split:
                    continue
            name = values[self.image]
            if not name:
                faults.append(Fault(where, "row without image"))
            elif not (image := first_file([root / self.images / name, table.parent / name])):
                faults.append(Fault(where, "row whose image is missing", str(root / self.images / name)))
            else:
                group = None if self.group is None else values[self.group]
                entries.append(Entry(name, image, values[self.text] or "", group or None))
        return entries, faults


class Laia:
    """A PyLaia table: for each image a line with its id and its text as tokens separated by spaces.

    Args:
        images: folders of the images below the root; an id is a name there, with or without its suffix.
        space: the token for a space; None: the text is not split into tokens, everything after the id is the text.
    """

    def __init__(self, images: Sequence[str], space: str | None = "<space>") -> None:
        self.images, self.space = list(images), space

    def __call__(self, root: Path, part: str, split: str) -> Found:
        """The lines of a table, without empty lines and comments (#)."""
        entries, faults = [], []
        for number, line in enumerate(read_utf8(root / part).split("\n"), start=1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            id, *rest = line.strip().split(maxsplit=1)
            text = rest[0] if rest else ""
            if self.space is not None:
                text = "".join(" " if token == self.space else token for token in text.split())
            names = [id + ending for ending in ("", *SUFFIXES)]
            if image := first_file([root / folder / name for folder in self.images for name in names]):
                entries.append(Entry(id, image, text))
            else:
                faults.append(Fault(f"{root / part}:{number}", "row whose image is missing", id))
        return entries, faults


class Classes:
    """A folder for each character, with its images: `あ/001.png`, or `U+3042/001.png` by its code point.

    Args:
        names: table below the root of folder names and characters, separated by tabs; None: folders are named by their
            characters.
    """

    def __init__(self, names: str | None = None) -> None:
        self.names = names

    def __call__(self, root: Path, part: str, split: str) -> Found:
        """The images below the folders."""
        names: dict[str, str] = {}
        for number, line in enumerate(read_utf8(root / self.names).splitlines() if self.names else [], start=1):
            folder, _, character = line.partition("\t")
            if not folder or not character:
                raise InputError(f"{root / str(self.names)}:{number}: give a folder name, a tab and a character")
            names[folder] = character
        entries, faults = [], []
        for path in files_below(root / part):
            if path.suffix.lower() not in SUFFIXES:
                continue
            inside = path.relative_to(root / part).parts
            if len(inside) < 2:
                faults.append(Fault(str(path), "image outside the folders of classes"))
            elif self.names and inside[0] not in names:
                faults.append(Fault(str(path), "folder without a character", f"{inside[0]} is not in {self.names}"))
            else:
                text = names.get(inside[0]) or _character(inside[0])
                entries.append(Entry(path.relative_to(root).with_suffix("").as_posix(), path, text))
        return entries, faults


def read_rows(
    path: Path, columns: Sequence[str | int], delimiter: str | None = None
) -> Iterator[tuple[int, dict[str | int, Any] | str]]:
    """The rows of a table with their line numbers; for a bad row, what is wrong with it.

    Raises:
        InputError: there is no such table, it is not UTF-8, or its header lacks a column.
    """
    content = read_utf8(path)
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        for number, line in enumerate(content.split("\n"), start=1):
            if line.strip():
                yield number, _object(line)
        return
    if delimiter is None:
        delimiter = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": "\t"}.get(path.suffix.lower())
    if delimiter is None or len(delimiter) != 1:
        raise InputError(
            f"{path}: not a known kind of table; use .csv, .tsv or .jsonl, or set data.reader.listing.delimiter"
        )
    rows = csv.reader(
        StringIO(content, newline=""),
        delimiter=delimiter,
        quoting=csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL,  # with tabs nothing is quoted
        strict=True,
    )
    header: list[Any] | None = None
    try:
        for row in rows:
            if not row:
                continue
            if header is None:
                header = list(range(len(row))) if all(isinstance(column, int) for column in columns) else row
                if lacking := [column for column in columns if column not in header]:
                    raise InputError(
                        f"{path}: no column '{lacking[0]}' among {printable(', '.join(map(str, header))[:200])}; "
                        "set data.reader.listing to the names of the columns"
                    )
                if header is row:
                    continue
            if len(row) == len(header):
                yield rows.line_num, dict(zip(header, row, strict=True))
            else:
                yield rows.line_num, f"row of {len(row)} cells in a table of {len(header)} columns"
    except csv.Error as error:
        raise InputError(f"{path}:{rows.line_num}: cannot be read ({error}); correct the quotes in this row") from None


def _object(line: str) -> dict[str | int, Any] | str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return "row that is not JSON"
    return row if isinstance(row, dict) else "row that is not a JSON object"


def read_utf8(path: Path) -> str:
    """The text of a file, without a byte order mark.

    Raises:
        InputError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; check data.root and the names below it") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None


def files_below(folder: Path) -> list[Path]:
    """The files in and below a folder, sorted."""
    return sorted(Path(where, name) for where, _, names in os.walk(folder) for name in names)


def first_file(paths: Sequence[Path]) -> Path | None:
    """The first path that is an existing file."""
    return next((path for path in paths if exists(path) and path.is_file()), None)


def _character(folder: str) -> str:
    code = folder[2:]
    try:
        return chr(int(code, 16)) if folder.startswith("U+") else folder
    except (ValueError, OverflowError):
        return folder
