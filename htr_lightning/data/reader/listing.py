"""Find image files and their texts, which are given by text files, tables, PyLaia tables or folder names."""

import csv
import json
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from htr_lightning.data.fault import Fault, printable
from htr_lightning.data.files import files_below
from htr_lightning.data.image import SUFFIXES
from htr_lightning.data.reader.folder import Entry, exists
from htr_lightning.errors import InputError

SPELLINGS = {"train": ("train", "training"), "val": ("val", "valid", "validation", "dev"), "test": ("test", "testing")}
Found = tuple[list[Entry], list[Fault]]


class Pairs:
    """Pairs of an image and a text file, such as `x.png` and `x.gt.txt`, as in kraken, Calamari and OCR-D.

    Args:
        images: suffixes of image files; if several images share a text file, the one whose suffix is listed first
            is used.
        text: suffix of text files.
    """

    def __init__(self, images: Sequence[str], text: str = ".gt.txt") -> None:
        self.images, self.text = [ending.lower() for ending in images], text
        self.contents = f"images and their text files, e.g. train/1{self.images[0]} and train/1{text}"

    def __call__(self, root: Path, part: str, split: str) -> Found:
        """Find the pairs below a folder."""
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
                faults.append(Fault(str(path), "unreadable text", str(error).partition(": ")[2]))
                continue
            if not same:
                faults.append(Fault(str(path), "text without an image", f"expected one of {', '.join(self.images)}"))
            elif "\n" in text:
                faults.append(Fault(str(path), "text with several lines", f"{text.count(chr(10)) + 1} lines"))
            else:
                entries.append(Entry(stem, same[0], text))
        faults += [Fault(str(path), f"image without {self.text}") for path in pictures.values()]
        return entries, faults


class Images:
    """Images without texts, for example for pseudo-labelling."""

    contents = "images"

    def __call__(self, root: Path, part: str, split: str) -> Found:
        """Find the images below a folder."""
        paths = [path for path in files_below(root / part) if path.suffix.lower() in SUFFIXES]
        return [Entry(path.relative_to(root).as_posix(), path, "") for path in paths], []


class Table:
    """A CSV, TSV or JSON Lines table with a row for each image.

    Columns are identified by name, or by index (starting at 0) if the table has no header.

    Args:
        image: column containing the image file names, relative to `images` or to the folder of the table.
        text: column containing the texts.
        group: column containing the writer or document; None derives the group from the image name with
            `data.reader.group`.
        split: column containing the split of each row; None if the table contains only one split.
        images: folder of the images, relative to the root.
        delimiter: cell delimiter; None chooses a comma for .csv and a tab for .tsv, .tab and .txt.
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
        self.contents = "images and a table with their transcriptions, e.g. train.csv"

    def __call__(self, root: Path, part: str, split: str) -> Found:
        """Read the rows of a table."""
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
                faults.append(Fault(where, "cell is not text", f"{bad}={str(values[bad])[:40]}"))
                continue
            if self.split is not None:
                stated = next((s for s, spelt in SPELLINGS.items() if str(values[self.split]).lower() in spelt), None)
                if stated is None:
                    faults.append(Fault(where, "row with an unknown split", f"{self.split}={values[self.split]}"))
                if stated != split:
                    continue
            name = values[self.image]
            if not name:
                faults.append(Fault(where, "row without an image"))
            elif not (image := first_file([root / self.images / name, table.parent / name])):
                faults.append(Fault(where, "image not found", str(root / self.images / name)))
            else:
                group = None if self.group is None else values[self.group]
                entries.append(Entry(name, image, values[self.text] or "", group or None))
        return entries, faults


class Laia:
    """A PyLaia table, in which each row contains an image id and the space-separated tokens of a text.

    Args:
        images: folders of the images, relative to the root; an id is the name of an image, with or without its suffix.
        space: token that stands for a space; None if texts are not tokenised.
    """

    def __init__(self, images: Sequence[str], space: str | None = "<space>") -> None:
        self.images, self.space = list(images), space
        self.contents = "images and PyLaia tables with their transcriptions, e.g. train.txt"

    def __call__(self, root: Path, part: str, split: str) -> Found:
        """Read the rows of a table, ignoring empty rows and comments (#)."""
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
                faults.append(Fault(f"{root / part}:{number}", "image not found", id))
        return entries, faults


class Classes:
    """One folder of images per character, named after the character (`あ/1.png`) or its code point (`U+3042/1.png`).

    Args:
        names: path, relative to the root, to a table of folder names and characters, separated by tabs; None if folders
            are named after characters or code points.
    """

    def __init__(self, names: str | None = None) -> None:
        self.names = names
        self.contents = "one folder of images per character, e.g. train/a/1.png"

    def __call__(self, root: Path, part: str, split: str) -> Found:
        """Find the images in the folders."""
        names: dict[str, str] = {}
        for number, line in enumerate(read_utf8(root / self.names).splitlines() if self.names else [], start=1):
            folder, _, character = line.partition("\t")
            if not folder or not character:
                raise InputError(f"{root / str(self.names)}:{number}: expected a folder name, a tab and a character")
            names[folder] = character
        entries, faults = [], []
        for path in files_below(root / part):
            if path.suffix.lower() not in SUFFIXES:
                continue
            inside = path.relative_to(root / part).parts
            if len(inside) < 2:
                faults.append(Fault(str(path), "image outside the character folders"))
            elif self.names and inside[0] not in names:
                faults.append(Fault(str(path), "folder without a character", f"{inside[0]} is not in {self.names}"))
            else:
                text = names.get(inside[0]) or _character(inside[0])
                entries.append(Entry(path.relative_to(root).with_suffix("").as_posix(), path, text))
        return entries, faults


def read_rows(
    path: Path, columns: Sequence[str | int], delimiter: str | None = None
) -> Iterator[tuple[int, dict[str | int, Any] | str]]:
    """Yield the line number of each row with its cells, or with a description of the fault if the row is invalid.

    Raises:
        InputError: if the table cannot be read or parsed, or lacks a requested column.
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
            f"{path}: unsupported table format; use .csv, .tsv or .jsonl, or set data.reader.listing.delimiter"
        )
    rows = csv.reader(
        StringIO(content, newline=""),
        delimiter=delimiter,
        quoting=csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL,  # tab-separated tables have no quoting
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
                    available = printable(", ".join(map(str, header))[:200])
                    raise InputError(
                        f"{path}: no column '{lacking[0]}' (available: {available}); set data.reader.listing.image and "
                        "data.reader.listing.text to the column names"
                    )
                if header is row:
                    continue
            if len(row) == len(header):
                yield rows.line_num, dict(zip(header, row, strict=True))
            else:
                yield rows.line_num, f"expected {len(header)} cells, got {len(row)}"
    except csv.Error as error:
        raise InputError(
            f"{path}:{rows.line_num}: cannot be parsed ({error}); correct the quotes in this row"
        ) from None


def _object(line: str) -> dict[str | int, Any] | str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return "row is not valid JSON"
    return row if isinstance(row, dict) else "row is not a JSON object"


def read_utf8(path: Path) -> str:
    """Read a UTF-8 text file, dropping its byte order mark if it has one.

    Raises:
        InputError: if the file cannot be read, or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; check data.root and data.reader") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (at byte {error.start}); save it as UTF-8") from None


def first_file(paths: Sequence[Path]) -> Path | None:
    """Return the first path that is an existing file."""
    return next((path for path in paths if exists(path) and path.is_file()), None)


def _character(folder: str) -> str:
    code = folder[2:]
    try:
        return chr(int(code, 16)) if folder.startswith("U+") else folder
    except (ValueError, OverflowError):
        return folder
